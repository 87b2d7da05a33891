package dns

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// followed is a watch of the DNS server of a real Consul.
type followed struct {
	t       *testing.T
	manager *discovery.Manager
	mu      sync.Mutex
	set     []discovery.Instance
	known   bool
}

func follow(t *testing.T, o Options) *followed {
	f := &followed{t: t}
	f.manager = discovery.NewManager(discovery.ManagerOptions{Sink: func(_ string, set []discovery.Instance) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.set, f.known = set, true
	}})
	s := NewSource("star", o).(*source)
	s.firstConfirmation = 100 * time.Millisecond
	f.manager.Watch("star", s)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.manager.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

// await waits for the ports of the set, with "?" for those on probation and "*" and the weight
// if it is not 1, and for a failure that contains text.
func (f *followed) await(want []string, failure string) {
	f.t.Helper()
	slices.Sort(want)
	var got []string
	var status discovery.WatchStatus
	defer func() {
		if f.t.Failed() {
			f.t.Logf("the set is %q; %+v", got, status)
		}
	}()
	consultest.Await(f.t, fmt.Sprintf("the set %q, error %q", want, failure), func() bool {
		status = f.manager.Statuses()[0]
		f.mu.Lock()
		defer f.mu.Unlock()
		got = nil
		for _, i := range f.set {
			word := fmt.Sprint(i.Port)
			if i.Weight != 1 {
				word += fmt.Sprintf("*%d", i.Weight)
			}
			if !i.Probation.IsZero() {
				word += "?"
			}
			got = append(got, word)
		}
		slices.Sort(got)
		return f.known && slices.Equal(got, want) && strings.Contains(status.LastError, failure) && (failure != "" || status.LastError == "")
	})
}

func register(t *testing.T, agent *consultest.Agent, port int, change ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		Name: "star", ID: fmt.Sprint(port), Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{CheckID: fmt.Sprint(port), TTL: "1h", Status: api.HealthPassing},
	}
	for _, c := range change {
		c(r)
	}
	verify.NoError(t, agent.Client().Agent().ServiceRegister(r))
}

// ports returns n ports, each with a suffix.
func ports(n int, suffix string) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(8000+i)+suffix)
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	verify.NoError(t, err)
}

const serviceName = "_star._tcp.service.consul"

// All of 30 instances arrive, and stay while the server does not answer.
func TestConsulDNSOutages(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*testing.T, *consultest.Agent, *consultest.Relay, *followed){
		"messages are lost": func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay, f *followed) {
			relay.Hang()
			f.await(ports(30, ""), "no answer within 2s")
			relay.Heal()
		},
		"connections are refused": func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay, f *followed) {
			relay.Cut()
			f.await(ports(30, ""), relay.Address())
			relay.Heal()
		},
		"the agent hangs": func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay, f *followed) {
			must(t, agent.Pause())
			f.await(ports(30, ""), "no answer within 2s")
			must(t, agent.Resume())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t, consultest.Options{})
			relay := consultest.StartRelay(t, agent.DNSAddress())
			for n := range 30 {
				register(t, agent, 8000+n)
			}
			f := follow(t, Options{Name: serviceName, Type: SRV, Servers: []string{relay.Address()}, Probation: time.Hour})
			f.await(ports(30, ""), "")
			f.mu.Lock()
			i := f.set[0]
			verify.That(t, i.Address == "127.0.0.1" && i.Priority == 1 && i.ID == fmt.Sprintf("7f000001.addr.dc1.consul:%d", i.Port), "%+v", i)
			f.mu.Unlock()
			outage(t, agent, relay, f)
			f.await(ports(30, ""), "")
			for n := 2; n < 30; n++ {
				must(t, agent.Client().Agent().ServiceDeregister(fmt.Sprint(8000+n)))
			}
			f.await(ports(2, ""), "")
		})
	}
}

// Weights and checks arrive.
func TestConsulDNS(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	register(t, agent, 8000)
	register(t, agent, 8001, func(r *api.AgentServiceRegistration) {
		r.Weights = &api.AgentWeights{Passing: 7, Warning: 3}
	})
	f := follow(t, Options{Name: serviceName, Type: SRV, Servers: []string{agent.DNSAddress()}, Probation: time.Hour})
	f.await([]string{"8000", "8001*7"}, "")
	local := agent.Client().Agent()
	must(t, local.UpdateTTL("8001", "slow", api.HealthWarning))
	f.await([]string{"8000", "8001*3"}, "")
	must(t, local.UpdateTTL("8000", "dead", api.HealthCritical))
	f.await([]string{"8001*3"}, "")
	must(t, local.UpdateTTL("8000", "", api.HealthPassing))
	f.await([]string{"8000", "8001*3"}, "")
}

// No instance is lost with the agent's data.
func TestConsulDNSLosesItsData(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	register(t, agent, 8000)
	register(t, agent, 8001, func(r *api.AgentServiceRegistration) {
		r.Weights = &api.AgentWeights{Passing: 3, Warning: 1}
	})
	f := follow(t, Options{Name: serviceName, Type: SRV, Servers: []string{agent.DNSAddress()}, Probation: time.Hour})
	f.await([]string{"8000", "8001*3"}, "")
	must(t, agent.Kill())
	f.await([]string{"8000", "8001*3"}, agent.DNSAddress())
	must(t, agent.Launch(t.Context())) // a dev agent has lost its data
	f.await([]string{"8000?", "8001*3?"}, "")
	register(t, agent, 8000)
	register(t, agent, 8001)
	f.await(ports(2, ""), "")
}

// Without TCP the instances arrive in datagrams that Consul cuts.
func TestConsulDNSWithoutTCP(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for n := range 30 {
		register(t, agent, 8000+n)
	}
	s := NewSource("star", Options{Name: serviceName, Type: SRV, Servers: []string{agent.DNSAddress()}}).(*source)
	s.dial = refusingTCP(s.dial)
	reports := make(chan discovery.Report)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		_ = s.Run(ctx, discovery.WatchState{}, func(r discovery.Report) {
			select {
			case reports <- r:
			case <-ctx.Done():
			}
		})
	})
	defer running.Wait()
	defer cancel()
	counts := make(map[int]int)
	for count := 0; count < 30; {
		r := <-reports
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		verify.Require(t, len(r.Set) >= count, "%d instances after %d", len(r.Set), count)
		count = len(r.Set)
		counts[count]++
	}
	t.Logf("answers by instances known: %v", counts)
}

func TestConsulDNSAddresses(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for n := range 3 {
		register(t, agent, 8000, func(r *api.AgentServiceRegistration) {
			r.ID, r.Address = fmt.Sprint(n), fmt.Sprintf("127.0.0.%d", n+1)
			r.Check.CheckID = r.ID
		})
	}
	f := follow(t, Options{Name: "star.service.consul", Type: IP, Port: 8000, Servers: []string{agent.DNSAddress()}})
	f.await([]string{"8000", "8000", "8000"}, "")
}

// refusingTCP is dial of a server without TCP.
func refusingTCP(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "tcp" {
			return nil, syscall.ECONNREFUSED
		}
		return dial(ctx, network, address)
	}
}
