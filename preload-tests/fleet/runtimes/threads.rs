// Rust's std::thread: channels, locks, conditions, barriers, park, panics, scopes, sockets. Prints what it has counted.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Barrier, Condvar, Mutex, Once, RwLock};
use std::thread;
use std::time::Duration;

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct Counted;
impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
    }
}
thread_local!(static OWN: Counted = Counted);

fn in_threads<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let f = &f;
    thread::scope(|s| {
        let all: Vec<_> = (0..n).map(|i| s.spawn(move || f(i))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn depth(n: u64) -> u64 {
    let frame = [n; 32];
    if n == 0 { 0 } else { depth(n - 1) + unsafe { std::ptr::read_volatile(&frame[3]) } }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));

    let (tx, rx) = mpsc::sync_channel(3);
    let senders: Vec<_> = (0..20u64)
        .map(|t| {
            let tx = tx.clone();
            thread::spawn(move || (0..500).for_each(|i| tx.send(t * 1000 + i).unwrap()))
        })
        .collect();
    drop(tx);
    println!("channel {}", rx.iter().sum::<u64>());
    senders.into_iter().for_each(|t| t.join().unwrap());

    let ends: Vec<_> = (0..30)
        .map(|i| thread::spawn(move || { let _d = Counted; if i % 3 == 0 { panic!("{}", i) } i }))
        .map(|t| t.join())
        .collect();
    let sum: i32 = ends.iter().filter_map(|r| r.as_ref().ok()).sum();
    println!("panics {} sum {} dropped {}", ends.iter().filter(|r| r.is_err()).count(), sum, DROPPED.swap(0, SeqCst));

    let (count, pair) = (Mutex::new(0), RwLock::new((0, 0)));
    let torn = AtomicUsize::new(0);
    in_threads(12, |me| {
        for _ in 0..500 {
            *count.lock().unwrap() += 1;
            if me < 3 {
                let mut p = pair.write().unwrap();
                *p = (p.0 + 1, p.1 + 1);
            } else {
                let p = pair.read().unwrap();
                torn.fetch_add((p.0 != p.1) as usize, SeqCst);
            }
        }
        OWN.with(|_| ());
    });
    println!("locks {} {:?} torn {:?}, dropped {:?}", count.lock().unwrap(), pair.read().unwrap(), torn, DROPPED);

    let (turn, changed) = (Mutex::new(0), Condvar::new());
    in_threads(2, |me| {
        for _ in 0..2000 {
            let mut t = changed.wait_while(turn.lock().unwrap(), |t| *t % 2 != me).unwrap();
            *t += 1;
            changed.notify_one();
        }
    });
    let timeout = changed.wait_timeout(turn.lock().unwrap(), Duration::from_millis(5)).unwrap().1.timed_out();
    println!("turns {} timeout {}", turn.lock().unwrap(), timeout);

    let (barrier, leaders) = (Barrier::new(7), AtomicUsize::new(0));
    in_threads(7, |_| (0..100).for_each(|_| { leaders.fetch_add(barrier.wait().is_leader() as usize, SeqCst); }));
    static ONCE: Once = Once::new();
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    in_threads(20, |_| ONCE.call_once(|| { RUNS.fetch_add(1, SeqCst); }));
    println!("leaders {:?} once {:?}", leaders, RUNS);

    let tickets = Arc::new(AtomicUsize::new(0));
    let theirs = tickets.clone();
    let parked = thread::spawn(move || (1..2000).for_each(|i| while theirs.load(SeqCst) < i { thread::park() }));
    for _ in 1..2000 {
        tickets.fetch_add(1, SeqCst);
        parked.thread().unpark();
    }
    parked.join().unwrap();
    let big = thread::Builder::new().stack_size(64 << 20).spawn(|| depth(100_000)).unwrap();
    println!("parked, deep {}", big.join().unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for k in listener.incoming() {
            let mut k = k.unwrap();
            thread::spawn(move || {
                let mut buf = [0; 1000];
                while let Ok(n @ 1..) = k.read(&mut buf) {
                    k.write_all(&buf[..n]).unwrap();
                }
            });
        }
    });
    let same = in_threads(30, |me| {
        let mut k = TcpStream::connect(address).unwrap();
        k.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let echoes = (0..100).filter(|i| {
            let (out, mut back) = ([(me ^ i) as u8; 500], [0; 500]);
            k.write_all(&out).unwrap();
            k.read_exact(&mut back).unwrap();
            out == back
        });
        echoes.count()
    });
    println!("echoes {}", same.iter().sum::<usize>());
    let said = in_threads(8, |i| {
        let out = std::process::Command::new("/bin/echo").arg(i.to_string()).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse::<usize>().unwrap()
    });
    println!("children {}", said.iter().sum::<usize>());
}
