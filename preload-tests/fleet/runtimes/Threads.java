// The JVM's threads: monitors, java.util.concurrent, parallel streams, sockets, stacks that overflow, the garbage
// collector. Prints what it has counted.
import java.io.*;
import java.net.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.concurrent.locks.*;
import java.util.stream.*;

public class Threads {
    interface Body { long run(int i) throws Exception; }

    static long inThreads(int n, Body body) throws Exception {
        List<FutureTask<Long>> all = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            int me = i;
            FutureTask<Long> task = new FutureTask<>(() -> body.run(me));
            all.add(task);
            new Thread(task).start();
        }
        long sum = 0;
        for (FutureTask<Long> task : all)
            sum += task.get();
        return sum;
    }

    static int count, turn;
    static final Object monitor = new Object();

    static long deeper(long n) { return deeper(n + 1) + 1; }

    @SuppressWarnings("serial")
    static class Fib extends RecursiveTask<Integer> {
        final int n;
        Fib(int n) { this.n = n; }
        protected Integer compute() {
            if (n < 2)
                return n;
            Fib a = new Fib(n - 1);
            a.fork();
            return new Fib(n - 2).compute() + a.join();
        }
    }

    public static void main(String[] args) throws Exception {
        inThreads(20, i -> {
            for (int k = 0; k < 2000; k++)
                synchronized (monitor) { count++; }
            return 0;
        });
        System.out.println("count " + count);
        inThreads(2, me -> {
            for (int k = 0; k < 2000; k++)
                synchronized (monitor) {
                    while (turn % 2 != me)
                        monitor.wait();
                    turn++;
                    monitor.notifyAll();
                }
            return 0;
        });
        System.out.println("turns " + turn);

        BlockingQueue<Integer> queue = new ArrayBlockingQueue<>(5);
        long taken = inThreads(8, me -> {
            long sum = 0;
            for (int k = 0; k < 1000; k++)
                if (me % 2 == 0)
                    queue.put(k);
                else
                    sum += queue.take();
            return sum;
        });
        System.out.println("queue " + taken);
        ReadWriteLock rw = new ReentrantReadWriteLock();
        long[] pair = new long[2];
        long torn = inThreads(12, me -> {
            long bad = 0;
            for (int k = 0; k < 1000; k++) {
                Lock l = me < 3 ? rw.writeLock() : rw.readLock();
                l.lock();
                if (me < 3) { pair[0]++; pair[1]++; } else if (pair[0] != pair[1]) bad++;
                l.unlock();
            }
            return bad;
        });
        System.out.println("pair " + pair[0] + " torn " + torn);
        CyclicBarrier barrier = new CyclicBarrier(7);
        long leaders = inThreads(7, me -> {
            long n = 0;
            for (int k = 0; k < 100; k++)
                n += barrier.await() == 0 ? 1 : 0;
            return n;
        });
        System.out.println("leaders " + leaders + " fib " + new ForkJoinPool(8).invoke(new Fib(22)) + " stream " +
                           IntStream.range(0, 1000000).parallel().mapToLong(x -> x).sum());

        System.out.println("too deep " + inThreads(4, me -> {
            try { return deeper(0); } catch (StackOverflowError e) { return 1; }
        }));
        System.out.println("garbage " + inThreads(6, me -> {
            Map<Integer, byte[]> kept = new HashMap<>();
            for (int k = 0; k < 20000; k++)
                kept.put(k % 100, new byte[1000]);
            return kept.size();
        }));
        Thread sleeps = new Thread(() -> {
            try { Thread.sleep(1000000); } catch (InterruptedException e) { System.out.println("interrupted"); }
        });
        sleeps.start();
        sleeps.interrupt();
        sleeps.join();
        Thread parked = new Thread(() -> { while (!Thread.interrupted()) LockSupport.park(); });
        parked.start();
        parked.interrupt();
        parked.join();

        ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        Thread server = new Thread(() -> {
            try {
                for (;;) {
                    Socket k = listener.accept();
                    new Thread(() -> {
                        try { k.getInputStream().transferTo(k.getOutputStream()); k.close(); } catch (IOException e) { }
                    }).start();
                }
            } catch (IOException closed) { }
        });
        server.start();
        long same = inThreads(30, me -> {
            long n = 0;
            try (Socket k = new Socket(listener.getInetAddress(), listener.getLocalPort())) {
                for (int i = 0; i < 50; i++) {
                    byte[] out = new byte[300];
                    Arrays.fill(out, (byte) (me ^ i));
                    k.getOutputStream().write(out);
                    n += Arrays.equals(out, k.getInputStream().readNBytes(300)) ? 1 : 0;
                }
            }
            return n;
        });
        listener.close();
        server.join();
        System.out.println("echoes " + same + " children " + inThreads(6, me -> {
            Process p = new ProcessBuilder("echo", "" + me).start();
            long said = Long.parseLong(new String(p.getInputStream().readAllBytes()).trim());
            return said + p.waitFor();
        }));
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(3);
        CountDownLatch ticks = new CountDownLatch(20);
        timer.scheduleAtFixedRate(ticks::countDown, 0, 2, TimeUnit.MILLISECONDS);
        ticks.await();
        timer.shutdownNow();
        System.out.println("ended " + timer.awaitTermination(60, TimeUnit.SECONDS));
    }
}
