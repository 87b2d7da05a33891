// Package docs runs README.md, the pages of docs, and the tasks of operators.
//
// Every block of a page that is marked as console or sh is run, and every block that is marked as
// yaml is checked by sluice check. A block that cannot be run says why, in a comment that readers
// do not see:
//
//	<!-- illustration: needs systemd -->
//
// The blocks of a page run from top to bottom in one shell, in a directory that has only
// certificates and the examples, with sluice, consul and goapp on the PATH, and app, which answers
// at a port: app PORT [STATUS [STATUS-OF-/health]]. A command of a console block must print what
// the page shows below it; a command of an sh block must end with status 0. In what a page shows,
// … or ... stands for any text, and alone in a line for any lines. Times, durations and counters
// are not compared: see match_test.go. A command that prints something else is repeated for a
// while, because a change of Consul takes a moment to arrive.
//
// In place of go run ./examples/goapp the test runs goapp, and in place of consul agent -dev
// nothing. The ports of a page, such as 8080, become free ones, and /etc/sluice and /var/lib/sluice
// directories of the test: it changes them in commands and files, and back in what commands print.
//
// Further comments, each of which is for the next block unless it says otherwise:
//
//	<!-- consul: 8500 -->            a Consul, of which the page calls the port 8500, from here on
//	<!-- etcd: 2379 -->              the same with an etcd, and etcdctl on the PATH
//	<!-- setup                       these commands run here
//	goapp -port 9001 &
//	-->
//	<!-- file: sluice.yaml -->       the block is a file of this name
//	<!-- background -->              each command of the block runs in a terminal of its own: in a setup,
//	                                 stop 'port 9001' ends it
//	<!-- serves -->                  the command runs on when it has printed what the page shows
//	<!-- signal: TERM -->            it gets this signal, and the block is what it prints then
//	<!-- part: listener -->          the block has keys of a listener, a service or a route
//
// go test ./test/docs -update writes what commands print into the pages, where it differs.
package docs
