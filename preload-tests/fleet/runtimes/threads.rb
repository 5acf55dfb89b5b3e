# Ruby's threads: queues, mutexes, conditions, sockets, children, timeouts, Ractors. Prints what it has counted.
require 'socket'
require 'timeout'
require 'open3'

def threads(n)
  n.times.map { |i| Thread.new { yield i } }.map(&:value)
end

input, output = Queue.new, Queue.new
workers = Array.new(10) { Thread.new { while (x = input.pop) != :end do output << x * 2 end } }
2000.times { |i| input << i }
10.times { input << :end }
workers.each(&:join)
puts "queue #{Array.new(2000) { output.pop }.sum}"

bounded = SizedQueue.new(3)
taker = Thread.new { Array.new(1000) { bounded.pop }.sum }
1000.times { |i| bounded << i }
puts "bounded #{taker.value}"

mutex, count = Mutex.new, 0
threads(20) { 500.times { mutex.synchronize { count += 1 } } }
puts "count #{count}"

turn, changed = 0, ConditionVariable.new
other = Thread.new do
  500.times { mutex.synchronize { changed.wait(mutex) while turn.even?; turn += 1; changed.broadcast } }
end
500.times { mutex.synchronize { turn += 1; changed.broadcast; changed.wait(mutex) while turn.odd? } }
other.join
puts "turns #{turn}"

listener = TCPServer.new('127.0.0.1', 0)
Thread.new do
  loop { Thread.new(listener.accept) { |k| while (line = k.gets) do k.write line end; k.close } }
end
same = threads(30) do |i|
  k = TCPSocket.new('127.0.0.1', listener.addr[1])
  n = 50.times.count { |j| k.puts "#{i} #{j}"; k.gets == "#{i} #{j}\n" }
  k.close
  n
end
puts "echoes #{same.sum}"

[-> { sleep }, -> { loop {} }, -> { IO.pipe[0].read }].each do |wait|
  Timeout.timeout(0.05) { wait.call }
  puts 'no timeout'
rescue Timeout::Error
  puts 'timeout'
end

waits = Thread.new { begin; sleep; rescue => e; e.message; end }
sleep 0.01 until waits.stop?
waits.raise('stop')
puts "raised #{waits.value}"
killed = Thread.new { sleep }
killed.kill.join

said = threads(8) { |i| Open3.capture2('cat', stdin_data: i.to_s)[0].to_i + `echo #{i}`.to_i }
puts "children #{said.sum}"
codes = Array.new(5) { |i| fork { exit!(Thread.new { i }.value) } }.map { |pid| Process.wait2(pid)[1].exitstatus }
puts "forked #{codes.sum}"

def deeper(n) = deeper(n + 1)
puts threads(3) { Thread.current.report_on_exception = false; begin; deeper(0); rescue SystemStackError; 'too deep'; end }.uniq

$VERBOSE = nil # Ractor warns that it is experimental
puts "ractors #{Array.new(3) { |i| Ractor.new(i) { |k| (1..100_000).sum * k } }.sum(&:take)}"
threads(4) { 20_000.times { 'x' * 100 }; GC.start }
fibers = threads(4) { |i| f = Fiber.new { Fiber.yield i; 10 }; f.resume + f.resume }
puts "fibers #{fibers.sum}"
