package consultest

import (
	"fmt"
	"sync"
	"testing"
)

// Shared is an agent for those tests of a package that neither stop it nor need an empty one. It
// starts when the first test asks for it. Its methods may be called concurrently.
type Shared struct {
	ACLs bool // as in Options

	// mu guards the fields below.
	mu    sync.Mutex
	agent *Agent
	users int
}

// Agent returns the agent, and a name for what t writes there, which no other test gets. If the
// agent cannot start, it fails t. If t fails, it logs the last lines of the log of the agent.
func (s *Shared) Agent(t testing.TB) (a *Agent, name string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent == nil {
		// All tests together have more connections than a stock agent accepts from one address.
		limits := map[string]any{"http_max_conns_per_client": 10_000}
		s.agent = start(t, Options{ACLs: s.ACLs, Config: map[string]any{"limits": limits}})
	}
	s.agent.logIfFailed(t)
	s.users++
	return s.agent, fmt.Sprint("test-", s.users)
}

// Close ends the agent, if it runs. TestMain calls it when all tests have ended.
func (s *Shared) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent == nil {
		return nil
	}
	return s.agent.Close()
}
