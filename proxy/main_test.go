package proxy

import (
	"fmt"
	"os"
	"testing"
	"time"

	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Most tests wait for a time limit to end. Those that exchange thousands of messages with one
// deadline are not parallel.
func TestMain(m *testing.M) {
	parallel.SetDefault(24)
	os.Exit(m.Run())
}

// alone reports whether the test has this process to itself, which a test of something that
// the whole process has needs: memory, descriptors, goroutines. If not, it runs the test in
// such a process, while other tests run here, and returns false; the test returns then.
func alone(t *testing.T) bool {
	t.Helper()
	const variable = "SLUICE_TEST_ALONE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	t.Parallel()
	program := verify.Result(os.Executable()).Must(t)
	args := []string{"-test.v", "-test.run=^" + t.Name() + "$", fmt.Sprintf("-test.short=%t", testing.Short())}
	if deadline, ok := t.Deadline(); ok { // a little earlier, so that the stacks are seen
		args = append(args, fmt.Sprint("-test.timeout=", time.Until(deadline)*9/10))
	}
	var output subprocess.Output
	p := verify.Result(subprocess.Start(subprocess.Options{Program: program, Args: args, Env: []string{variable + "=" + t.Name()}, Output: &output})).Must(t)
	<-p.Exited()
	if t.Log(output.String()); p.Err() != nil {
		t.Errorf("alone: %v", p.Err())
	}
	return false
}

// eachCase calls f for each case beside the others, in a subtest of its name.
func eachCase[T any](t *testing.T, cases map[string]T, f func(t *testing.T, c T)) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, c)
		})
	}
}
