package chaos

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

type fault struct {
	name string
	// begin starts the fault, and returns a function that ends it.
	begin func(*trial) (end func())
	lasts time.Duration
	usual time.Duration // with its begin, its end and the recovery, on a quiet machine; shares the faults out
}

// faults contains all faults. Queries of sluice block for 2 s, and sluice gives up an agent
// that does not answer for 3 s.
var faults = []fault{
	{name: "leader killed and started again", lasts: 3 * time.Second, usual: 4 * time.Second, begin: func(t *trial) func() {
		leader := t.cluster.leader()
		verify.NoError(t.T, leader.Kill())
		return func() { verify.NoError(t.T, leader.Launch(t.Context())) }
	}},
	{name: "quorum lost", lasts: 4 * time.Second, usual: 8 * time.Second, begin: func(t *trial) func() {
		order := t.random.Perm(3)
		lost := []*consultest.Agent{t.cluster.servers[order[0]], t.cluster.servers[order[1]]}
		for _, s := range lost {
			verify.NoError(t.T, s.Kill())
		}
		return func() { t.cluster.launch(lost...) }
	}},
	{name: "agent stopped for longer than a wait", lasts: 6 * time.Second, usual: 8 * time.Second, begin: func(t *trial) func() {
		verify.NoError(t.T, t.cluster.agent.Pause())
		return func() { verify.NoError(t.T, t.cluster.agent.Resume()) }
	}},
	{name: "agent restarted", lasts: time.Second, usual: 6 * time.Second, begin: func(t *trial) func() {
		verify.NoError(t.T, t.cluster.agent.Stop()) // it leaves the cluster
		return func() { verify.NoError(t.T, t.cluster.agent.Launch(t.Context())) }
	}},
	{name: "agent restarted empty", lasts: time.Second, usual: 4 * time.Second, begin: func(t *trial) func() {
		verify.NoError(t.T, t.cluster.agent.Kill())
		verify.NoError(t.T, t.cluster.agent.Wipe())
		return func() { verify.NoError(t.T, t.cluster.agent.Launch(t.Context())) }
	}},
	{name: "connections half-open", lasts: 6 * time.Second, usual: 6 * time.Second, begin: func(t *trial) func() {
		t.cluster.relay.Hang()
		return t.cluster.relay.Heal
	}},
	{name: "network cut", lasts: 4 * time.Second, usual: 4 * time.Second, begin: func(t *trial) func() {
		t.cluster.relay.Cut()
		return t.cluster.relay.Heal
	}},
	{name: "agent slow", lasts: 5 * time.Second, usual: 6 * time.Second, begin: func(t *trial) func() {
		t.cluster.interceptor.intercept(slow)
		return t.cluster.interceptor.pass
	}},
	{name: "false answers", lasts: time.Second, usual: 8 * time.Second, begin: func(t *trial) func() {
		for _, n := range t.random.Perm(len(falseAnswers)) {
			t.cluster.interceptor.intercept(falseAnswers[n])
			t.last(time.Second)
		}
		return t.cluster.interceptor.pass
	}},
	{name: "token replaced, the old one revoked", lasts: time.Second, usual: 4 * time.Second, begin: func(t *trial) func() {
		old := t.cluster.token.AccessorID
		t.cluster.renewToken()
		t.revoke(old)
		return func() {}
	}},
	{name: "token revoked, replaced later", lasts: 4 * time.Second, usual: 4 * time.Second, begin: func(t *trial) func() {
		t.revoke(t.cluster.token.AccessorID)
		return t.cluster.renewToken
	}},
	{name: "older snapshot restored", lasts: 3 * time.Second, usual: 6 * time.Second, begin: func(t *trial) func() {
		// The snapshot has apps that have left, and lacks those that have started since.
		// The agent corrects that when it compares its services with the catalog: every
		// one to two minutes, and at its start.
		snapshot := t.saveSnapshot()
		t.apps.start()
		t.apps.stopOldest()
		t.awaitCaughtUp()
		before := t.cluster.index()
		t.cluster.agent.RestoreSnapshot(t.T, snapshot)
		t.awaitIndexBelow(before)
		return func() {
			verify.NoError(t.T, t.cluster.agent.Kill())
			verify.NoError(t.T, t.cluster.agent.Launch(t.Context()))
		}
	}},
	{name: "servers wiped", usual: 12 * time.Second, begin: func(t *trial) func() {
		before := t.highIndex()
		t.cluster.killServers()
		return func() {
			t.cluster.launchServersEmpty()
			verify.NoError(t.T, t.cluster.servers[0].Client().Agent().Join(t.cluster.agent.SerfAddress(), false))
			t.cluster.renewToken()
			t.awaitIndexBelow(before)
		}
	}},
	{name: "servers and agent wiped", lasts: time.Second, usual: 12 * time.Second, begin: func(t *trial) func() {
		before := t.highIndex()
		verify.NoError(t.T, t.cluster.agent.Kill())
		verify.NoError(t.T, t.cluster.agent.Wipe())
		for _, s := range t.cluster.servers {
			verify.NoError(t.T, s.Kill())
		}
		return func() {
			t.cluster.launchServersEmpty()
			verify.NoError(t.T, t.cluster.agent.Launch(t.Context()))
			t.cluster.renewToken()
			t.awaitIndexBelow(before)
		}
	}},
}

func (t *trial) revoke(accessor string) {
	t.Helper()
	consultest.Await(t.T, "the cluster revokes a token", func() bool {
		_, err := t.cluster.agent.Client().ACL().TokenDelete(accessor, nil)
		status := api.StatusError{}
		return err == nil || errors.As(err, &status) && status.Code == http.StatusNotFound // by an earlier attempt
	})
}

func (t *trial) saveSnapshot() []byte {
	t.Helper()
	var snapshot []byte
	consultest.Await(t.T, "the cluster saves a snapshot", func() bool {
		reader, _, err := t.cluster.agent.Client().Snapshot().Save(&api.QueryOptions{})
		if err != nil {
			return false
		}
		defer reader.Close()
		snapshot, err = io.ReadAll(reader)
		return err == nil
	})
	return snapshot
}

// highIndex shows sluice an index that the cluster does not reach soon after it has lost its state,
// and returns it.
func (t *trial) highIndex() uint64 {
	t.Helper()
	t.cluster.age()
	t.apps.start()
	t.awaitCaughtUp()
	return t.cluster.index()
}

func (t *trial) awaitIndexBelow(before uint64) {
	t.Helper()
	consultest.Await(t.T, "the index goes backwards", func() bool { return t.cluster.index() < before })
}

// slow answers after 1.5 s, which is longer than the timeout of a probe.
func slow(agent http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(1500 * time.Millisecond):
			agent.ServeHTTP(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	})
}

// falseAnswers are wrong answers of a broken agent, or of another server in its place.
var falseAnswers = []middleware{
	answer(http.StatusInternalServerError, nil, "rpc error making call: EOF"),
	answer(http.StatusTooManyRequests, nil, "Your IP is issuing too many concurrent connections"),
	answer(http.StatusOK, nil, "<html>Sign in to the network</html>"),
	answer(http.StatusOK, answerHeader, `[{"Node": {"Node": "client"`),
	answer(http.StatusOK, answerHeader, "null"),
	answer(http.StatusOK, answerHeader, "[]"),
	answer(http.StatusOK, map[string]string{"X-Consul-Index": "1", "X-Consul-KnownLeader": "false"}, "[]"),
}

var answerHeader = map[string]string{"X-Consul-Index": "100000", "X-Consul-KnownLeader": "true"}

func answer(status int, header map[string]string, body string) middleware {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
}
