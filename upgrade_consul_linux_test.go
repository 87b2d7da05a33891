package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/consultest"
)

// manyServices is so many that one process has a blocking query for each, over a
// connection of its own, and two processes would have more connections than an
// agent accepts from one address.
const manyServices = 115

// crowd is a real agent with many services, each with one instance that tells
// its name.
type crowd struct {
	t      *testing.T
	agent  *consultest.Agent
	origin *httptest.Server
}

func startCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t, agent: consultest.Start(t, consultest.Options{})}
	c.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Split(r.URL.Path, "/")[1])
	}))
	t.Cleanup(c.origin.Close)
	for n := range manyServices {
		c.register(n, "a", c.origin)
	}
	return c
}

// register registers an instance of a service.
func (c *crowd) register(n int, id string, at *httptest.Server) {
	c.t.Helper()
	host, port, _ := strings.Cut(strings.TrimPrefix(at.URL, "http://"), ":")
	number, _ := strconv.Atoi(port)
	name := crowdService(n)
	err := c.agent.Client().Agent().ServiceRegister(&consulapi.AgentServiceRegistration{Name: name, ID: name + "-" + id, Address: host, Port: number})
	if err != nil {
		c.t.Fatal(err)
	}
}

func crowdService(n int) string { return fmt.Sprintf("s%03d", n) }

// configuration routes /NAME to each service. More is added to the block of
// consul.
func (c *crowd) configuration(more string) string {
	var services, routes strings.Builder
	for n := range manyServices {
		name := crowdService(n)
		fmt.Fprintf(&services, "  %s: { consul: {} }\n", name)
		fmt.Fprintf(&routes, "  - { path: /%s, service: %s }\n", name, name)
	}
	return fmt.Sprintf("consul: { addresses: [%q]%s }\nservices:\n%sroutes:\n%s", c.agent.URL(), more, &services, &routes)
}

// ask makes the request of that number, to one service after the other.
func (c *crowd) ask(s *serving) func(number int) (*http.Request, string) {
	return func(number int) (*http.Request, string) {
		name := crowdService(number % manyServices)
		r, err := http.NewRequest(http.MethodGet, "http://"+s.address+"/"+name, nil)
		if err != nil {
			panic(err)
		}
		return r, name
	}
}

// ready is the body of /readyz, if its status is 200.
func (s *serving) ready() bool {
	r, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// Upgrades under load with so many services that two processes have no room at
// the agent beside each other: no request fails, and the agent refuses nobody,
// neither sluice nor what else is on the machine.
func TestReplaceWithManyServices(t *testing.T) {
	c := startCrowd(t)
	s := startServing(t, c.configuration(""))
	awaitThat(t, "it is ready", s.ready)
	l := startLoad(t, 6, c.ask(s))

	// Somebody else on this machine, who opens a connection each time.
	neighbour := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	refused, stop := 0, make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for pace := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				pace.Stop()
				return
			case <-pace.C:
			}
			r, err := neighbour.Get(c.agent.URL() + "/v1/status/leader")
			if err != nil {
				t.Error(err)
				continue
			}
			r.Body.Close()
			if r.StatusCode == http.StatusTooManyRequests {
				refused++
			}
		}
	})
	for range 5 {
		l.more(300)
		s.replace()
	}
	l.more(300)
	close(stop)
	asking.Wait()
	l.stop()
	t.Logf("%d requests", l.served.Load())
	if refused > 0 {
		t.Errorf("the agent refused the neighbour %d times", refused)
	}
	if n := strings.Count(s.log(), "429 Too Many Requests"); n > 0 {
		t.Errorf("the agent refused sluice: %d lines of the log", n)
	}

	c.change(s)
	s.end()
}

// change moves an instance, and waits until that is seen.
func (c *crowd) change(s *serving) {
	c.t.Helper()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "moved") }))
	c.t.Cleanup(moved.Close)
	c.register(7, "a", moved)
	awaitThat(c.t, "a change is seen", func() bool {
		r, err := http.Get("http://" + s.address + "/" + crowdService(7))
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return string(body) == "moved"
	})
}

// Upgrades while Consul is away: it hangs, then it is gone. No request fails, and
// the last process follows Consul when it is back.
func TestReplaceWhileConsulIsAway(t *testing.T) {
	c := startCrowd(t)
	s := startServing(t, c.configuration(""))
	awaitThat(t, "it is ready", s.ready)
	l := startLoad(t, 6, c.ask(s))
	l.more(100)
	if err := c.agent.Pause(); err != nil {
		t.Fatal(err)
	}
	s.replace()
	l.more(manyServices)
	s.replace()
	l.more(manyServices)
	if err := c.agent.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := c.agent.Kill(); err != nil {
		t.Fatal(err)
	}
	s.replace()
	l.more(manyServices)
	if !s.ready() {
		t.Error("it is not ready")
	}
	if err := c.agent.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range manyServices {
		c.register(n, "a", c.origin)
	}
	l.more(manyServices)
	l.stop()
	c.change(s)
	s.end()
}
