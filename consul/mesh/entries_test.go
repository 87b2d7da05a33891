package mesh

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/events"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// manyServices follows the chains of more services, and the intentions for them, than there may be
// queries, in virtual time.
type manyServices struct {
	*agent
	chains     *Chains
	intentions *Intentions
	entries    int // written
}

const services = 40

func inManyServices(t *testing.T, maxWatches int, do func(t *testing.T, m *manyServices)) {
	synctest.Test(t, func(t *testing.T) {
		m := &manyServices{agent: newAgent()}
		for _, kind := range slices.Concat(kindsOfChains, kindsOfIntentions) {
			m.set("/v1/config/"+kind, m.entries)
		}
		var ids []ChainID
		var all []Destination
		for n := range services {
			ids, all = append(ids, ChainID{Service: nameOf(n)}), append(all, Destination{Service: nameOf(n)})
			m.write(n, "tcp", "allow")
		}
		pipe := discoverytest.ServePipe(m.agent)
		defer pipe.Close()
		client := verify.Result(consul.New(consul.Options{
			Addresses: []string{"http://fake"}, MaxWatches: maxWatches, ProbeInterval: time.Minute, Log: zerolog.Nop(), Dial: pipe.DialContext,
		})).Must(t)
		defer client.Close()
		wait := func() time.Duration { return 10 * time.Minute }
		m.chains = NewChains(ChainOptions{Consul: client, Wait: wait, Changed: func() {}, Log: zerolog.Nop()})
		m.intentions = NewIntentions(IntentionOptions{Consul: client, Wait: wait, Denied: func(Destination) {}, Events: events.New(), Log: zerolog.Nop()})
		m.chains.Follow(ids)
		m.intentions.Follow("sluice", all)
		defer m.chains.Pause()
		defer m.intentions.Pause()
		time.Sleep(time.Minute)
		do(t, m)
	})
}

func nameOf(n int) string { return fmt.Sprint("web", n) }

func chainPath(n int) string { return "/v1/discovery-chain/" + nameOf(n) }

func chainOf(n int, protocol string) any {
	return map[string]any{"Chain": Compiled{ServiceName: nameOf(n), StartNode: "a", Protocol: protocol}}
}

// write changes what Consul says about a service, and the config entries with it.
func (m *manyServices) write(n int, protocol, action string) {
	m.set(chainPath(n), chainOf(n, protocol))
	m.set("/v1/connect/intentions/match?name="+nameOf(n), map[string]any{nameOf(n): []intention{{SourceName: "*", DestinationName: nameOf(n), Action: action}}})
	m.entries++
	m.set("/v1/config/service-defaults", m.entries)
	m.set("/v1/config/service-intentions", m.entries)
}

// knows reports whether it is known what Consul says about a service.
func (m *manyServices) knows(n int, protocol string, denied bool) bool {
	c := m.chains.Lookup(ChainID{Service: nameOf(n)}).Compiled
	return c != nil && c.Protocol == protocol && (m.intentions.DeniedBy(Destination{Service: nameOf(n)}) != "") == denied
}

// notices writes a change of a service, which must be known within a time.
func (m *manyServices) notices(t *testing.T, n int, protocol, action string, within time.Duration) {
	t.Helper()
	m.write(n, protocol, action)
	begin := time.Now()
	for !m.knows(n, protocol, action == "deny") && time.Since(begin) < 10*time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	verify.That(t, time.Since(begin) <= within, "a change of %s is known after %v", nameOf(n), time.Since(begin))
}

// With more services than queries that may block, a change of any is noticed as soon as with few,
// and then with few again. Also a change while Consul does not say that there are any is noticed.
func TestChangesOfManyServices(t *testing.T) {
	inManyServices(t, 16, func(t *testing.T, m *manyServices) {
		for n := range services {
			verify.That(t, m.knows(n, "tcp", false), "%s is not known after a minute", nameOf(n))
		}
		for n := range services {
			m.notices(t, n, "http", "deny", time.Second)
			time.Sleep(10 * time.Second)
		}
		m.questions(chainPath(0))
		time.Sleep(time.Hour)
		asked := len(m.questions(chainPath(0)))
		verify.That(t, asked >= 6 && asked <= 7, "without a change, a chain was asked %d times in an hour", asked)

		for _, path := range []string{"/v1/config/service-defaults", "/v1/config/service-intentions"} {
			m.refuse(path, http.StatusInternalServerError, "no leader")
		}
		m.set(chainPath(1), chainOf(1, "grpc"))
		time.Sleep(2 * time.Second)
		verify.That(t, m.knows(1, "grpc", true), "without the lists, a change is not noticed")
		m.notices(t, 2, "grpc", "allow", 2*time.Second) // with the lists

		m.chains.Follow([]ChainID{{Service: "web3"}})
		m.intentions.Follow("sluice", []Destination{{Service: "web3"}})
		time.Sleep(time.Minute)
		m.questions("/v1/config/service-defaults")
		m.notices(t, 3, "grpc", "allow", 100*time.Millisecond)
		time.Sleep(time.Hour)
		verify.Equal(t, len(m.questions("/v1/config/service-defaults")), 0, "queries of all entries for one service")
	})
}
