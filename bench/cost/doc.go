// Command cost counts what a request costs sluice, in figures that other work on the machine does
// not change: system calls by name, allocations and their bytes, and instructions where the machine
// counts them.
//
//	go run ./bench/cost                  # compares the counts with bounds.txt: the gate of .ci/run
//	go run ./bench/cost -run small,h2
//	go run ./bench/cost -sluice /tmp/sluice-before
//	go run ./bench/cost -features -document bench/cost/results.md
//
// It needs Linux and the Debian package strace, and may be run by any user who may trace his own
// processes.
//
// Clients and origins are goroutines of this program, and each client sends its next request when
// it has the last byte of the answer. sluice has one processor of Go (GOMAXPROCS=1) and the
// configuration of conf/sluice.yaml: static peers, a JSON access log, and everything else by
// default.
//
// Allocations, bytes and instructions are counted around requests that nothing observes. Then
// strace counts the system calls of further requests, which are slower for it. So calls that return
// at once with EAGAIN, and those of Go's scheduler (epoll_pwait, futex), depend on how fast an
// answer comes; what sluice reads, writes, opens and closes does not. bounds.txt tells them apart.
package main
