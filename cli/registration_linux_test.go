package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/consul/registration"
	"sluice/test/consultest"
)

// A new process continues the registration of the old one, which passes all the time. The last
// process removes it.
func TestRegistrationOutlivesAnUpgrade(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	origin := httptest.NewServer(http.NotFoundHandler())
	defer origin.Close()
	s := startServing(t, fmt.Sprintf("consul: { addresses: [%q], register: { check: { interval: 1s, timeout: 1m } } }\n", agent.URL())+static(origin.URL))
	entries := func() []*consulapi.ServiceEntry {
		list, _, err := agent.Client().Health().Service("sluice", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	awaitThat(t, "the registration", func() bool { return len(entries()) == 1 })
	before := entries()[0].Service

	s.signal(syscall.SIGUSR2)
	old := s.pid
	s.pid = awaitPID(t, s.pidFile, old)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.awaitEnd(old)
	}()
	awaitThat(t, "the new process has taken over", func() bool {
		list := entries()
		if len(list) != 1 || list[0].Checks.AggregatedStatus() != consulapi.HealthPassing {
			t.Fatalf("during the upgrade: %d entries", len(list))
		}
		return strings.Count(s.log(), `"check":"`) == 2
	})
	<-ended
	list := entries()
	if len(list) != 1 || list[0].Service.ID != before.ID || list[0].Service.CreateIndex != before.CreateIndex || list[0].Checks.AggregatedStatus() != consulapi.HealthPassing ||
		list[0].Service.Meta[registration.MetaReplica] != before.Meta[registration.MetaReplica] {
		t.Errorf("after the upgrade %+v, before %+v", list, before)
	}

	s.end()
	awaitThat(t, "the registration is removed", func() bool { return len(entries()) == 0 })
}
