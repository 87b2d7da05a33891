// Package rolling holds the test of a rolling deploy: the instances of an
// application are replaced one after the other, through a real Consul and a
// whole gateway, under a steady load of requests whose send times do not depend
// on the answers. docs/rolling.md has its results.
//
//	go test -v ./rolling                             # every mode, with settings and without: 40 s
//	go test -v -run 'TestRollingDeploy$' ./rolling   # with the settings of docs/rolling.md
//	go test -v -run WithDefaults ./rolling           # without any setting
//	go test -v -short ./rolling                      # three modes, two replacements each: 10 s
//	SLUICE_ROLLING=long go test -v ./rolling         # 12 instances, a longer calm: 4 min
//
// The modes are the ways in which instances leave, or misbehave:
//
//   - graceful: deregisters, waits, finishes what it has, closes
//   - stop: deregisters and shuts down at once; finishes what it has
//   - abrupt: resets its connections; deregisters 300 ms later
//   - crash: the same, but never deregisters; Consul's check finds out
//   - hang: goes on accepting and reading and never answers; Consul's check
//     times out
//   - flap: the check of one instance changes every second, while the others
//     are replaced as in graceful
//   - slow: one of ten instances becomes 50 times slower
//
// # What is asserted
//
//   - No GET fails, in no mode.
//   - A POST fails only if some of it had reached an instance that was about to
//     die or hung: whether that one acted on it nobody can know, so it must not
//     be sent again (RFC 9110, section 9.2.2). The application keeps a ledger of
//     what reached which instance, up to what its sockets still hold when it
//     resets them, so this is known for each request.
//   - No POST reaches two instances.
//   - Every answer is the one to its request, and to all of its body.
//   - Every new instance gets requests.
//   - No GET takes much longer than Consul's check takes to find a hanging
//     instance, by the measure of what the machine makes requests last that do
//     not go through the gateway.
//
// Other times are printed and not asserted: they depend on the machine.
package rolling
