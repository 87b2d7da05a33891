package proxy

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/upstream"
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

// leftovers checks now and then that the cases of a fuzz target have left nothing of sluice in the
// process: no goroutine, no buffer, and no sweeper that waits. Cases may be parallel; none runs
// during a check.
type leftovers struct {
	running sync.RWMutex // to read: a case runs

	mu sync.Mutex
	// mu guards the fields below.
	cases      int
	goroutines int // after the first case
	buffers    *countedBuffers
}

// casesBetweenChecks is few enough for all their garbage, which is collected at a check.
const casesBetweenChecks = 100

// findLeftovers begins to count.
func findLeftovers(f *testing.F) *leftovers {
	limit := debug.SetMemoryLimit(1 << 30)
	f.Cleanup(func() { debug.SetMemoryLimit(limit) })
	return &leftovers{buffers: countBuffers(f)}
}

// enter is called by a case of p at its start, and what it returns when all else of the case has
// ended.
func (l *leftovers) enter(t *testing.T, p *testProxy) (leave func()) {
	l.running.RLock()
	return func() {
		l.running.RUnlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.cases++; l.cases == 1 || l.cases%casesBetweenChecks == 0 {
			l.check(t, p)
		}
	}
}

// check requires mu.
func (l *leftovers) check(t *testing.T, p *testProxy) {
	l.running.Lock()
	defer l.running.Unlock()
	if l.cases == 1 {
		// Else one that begins later is one too many.
		eventually(t, "every goroutine has begun", func() bool { return !strings.Contains(allStacks(), "]:\nsync.(*WaitGroup).Go.func1()") })
		l.goroutines = ownGoroutines()
	}
	start := p.sweeper.Now()
	eventually(t, "the sweeper goes on", func() bool { return p.sweeper.Now() > start })
	eventually(t, "no goroutine is left", func() bool { return ownGoroutines() <= l.goroutines })
	l.buffers.check(t)
	runtime.GC()
	l.buffers.forget()
}

// ownGoroutines returns how many goroutines are in this package, or were started by it, other
// than by tests.
func ownGoroutines() (n int) {
	for stack := range strings.SplitSeq(allStacks(), "\n\n") {
		for line := range strings.SplitSeq(stack, "\n") {
			if strings.HasPrefix(line, "\t") && strings.Contains(line, "/proxy/") && !strings.Contains(line, "_test.go:") {
				n++
				break
			}
		}
	}
	return n
}

// allStacks returns the stacks of all goroutines.
func allStacks() string {
	stacks := make([]byte, 1<<20)
	for {
		if size := runtime.Stack(stacks, true); size < len(stacks) {
			return string(stacks[:size])
		}
		stacks = make([]byte, 2*len(stacks))
	}
}

// expectNoEntries waits until the sweeper has no entry of a client: one at most for each
// connection to the peers of pools.
func (p *testProxy) expectNoEntries(t testing.TB, pools ...*balancer.Pool) {
	t.Helper()
	eventually(t, "the sweeper has no entry of a client", func() bool {
		connections := 0
		for _, pool := range pools {
			for _, peer := range pool.Snapshot().All {
				idle, busy := peer.Transport.(upstream.Connector).Connections()
				connections += idle + busy
			}
		}
		return p.sweeper.Entries() <= connections
	})
}
