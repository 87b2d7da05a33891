// Package rolling tests a rolling deploy: the instances of an application are replaced
// one after the other, with a real Consul and a whole gateway, under an open-loop load.
// docs/performance.md has the results.
//
//	export SLUICE_TESTS=all                               # without it, nothing runs
//	go test -v ./test/rolling                             # everything: 1 min
//	go test -v -run 'TestRollingDeploy$' ./test/rolling   # with the settings of docs/performance.md
//	go test -v -run WithDefaults ./test/rolling           # without any setting
//	SLUICE_ROLLING=long go test -v ./test/rolling         # 12 instances, longer pauses: 4 min
//
// The modes are the ways in which instances leave or fail:
//
//   - graceful: deregisters, waits, finishes its requests, closes
//   - stop: deregisters and shuts down at once; finishes its requests
//   - abrupt: resets its connections; deregisters 300 ms later
//   - crash: the same, but never deregisters; Consul's check fails
//   - hang: accepts and reads but never answers; Consul's check times out
//   - flap: the check of one instance changes every second, while the others are replaced
//   - slow: one of ten instances becomes 50 times slower
//
// # Assertions
//
//   - No GET fails, except one whose answer an instance of HTTP/2 had begun when it died: net/http
//     writes head and body apart, and sluice waits for the body for 100 ms only.
//   - A POST or a call of gRPC fails only if a part of it reached an instance that was about to die
//     or hung, so that it must not be sent again (RFC 9110, section 9.2.2). The application records
//     what reached which instance.
//   - No POST and no call reaches two instances.
//   - Every answer belongs to its request, and to all of its body.
//   - Every new instance gets requests.
//   - No GET takes much longer than Consul's check needs to find a hanging instance, relative to
//     requests that bypass the gateway.
//
// TestRollingDeployHTTPS, -HTTP2 and -GRPC are the same for other protocols, with all modes at the
// same time. TestRollingDeployOfRegisteredApps replaces apps that "sluice register" runs; none of
// its requests may fail.
//
// Other times are logged and not asserted.
package rolling
