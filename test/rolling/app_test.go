//go:build unix

package rolling

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
)

// app is an instance of an application, with its registration in Consul.
type app struct {
	registration
	instance
	server
}

// instance is what a server knows about its instance.
type instance struct {
	name   string // id of the instance
	ledger *ledger
	work   *atomic.Int64 // duration of a request in nanoseconds
	hung   chan struct{} // closed when it hangs: it accepts and reads, and does not answer
	dead   chan struct{} // closed when it dies
}

// server is how an instance serves. Its methods are called once at most.
type server interface {
	address() string
	// stop finishes the requests that have arrived, and closes all sockets.
	stop()
	// reset resets all connections and closes the listener, after dead was closed.
	reset()
}

// peerProtocol is a protocol between sluice and the instances.
type peerProtocol struct {
	upstream string // key of the service
	retry    string // further keys of retry
	parts    bool   // an instance can die between the head of an answer and its body
	start    func(instance) (server, error)
	check    func(address string) api.AgentServiceCheck // of Consul
}

var (
	http1Peers = peerProtocol{
		start: startHTTP1,
		check: func(address string) api.AgentServiceCheck {
			return api.AgentServiceCheck{HTTP: "http://" + address + "/health"}
		},
	}
	http2Peers = peerProtocol{
		upstream: "    upstream: { protocol: h2, tls: { skip_verify: true } }\n",
		// net/http refuses the requests that cross its GOAWAY. Only those that sluice has as a
		// whole can be sent again.
		retry: ", body: 128KiB",
		parts: true, // net/http writes one frame after the other
		start: startHTTP2,
		check: func(address string) api.AgentServiceCheck {
			return api.AgentServiceCheck{HTTP: "https://" + address + "/health", TLSSkipVerify: true}
		},
	}
	grpcPeers = peerProtocol{
		upstream: "    upstream: { protocol: h2c }\n",
		start:    startGRPC,
		check:    func(address string) api.AgentServiceCheck { return api.AgentServiceCheck{GRPC: address} },
	}
)

// startApp starts an instance, which is not registered.
func startApp(consul *api.Client, l *ledger, p peerProtocol, service, id string, work time.Duration) (*app, error) {
	i := instance{name: id, ledger: l, work: new(atomic.Int64), hung: make(chan struct{}), dead: make(chan struct{})}
	i.work.Store(int64(work))
	s, err := p.start(i)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(s.address())
	if err != nil {
		return nil, err
	}
	a := &app{instance: i, server: s, registration: registration{consul: consul, id: id, service: service}}
	if a.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	a.check = func(timeout time.Duration) *api.AgentServiceCheck {
		c := p.check(s.address())
		c.Interval, c.Timeout = "1s", timeout.String()
		return &c
	}
	return a, nil
}

// die resets all connections and closes the listener. Requests may be lost.
func (a *app) die() {
	a.ledger.doom(a.id)
	a.end()
	a.ledger.bury(a.address())
}

// end is die, but the ledger does not accept lost requests because of it.
func (a *app) end() {
	close(a.dead)
	a.reset()
}

// hang makes the instance accept and read, but not answer.
func (a *app) hang() {
	a.ledger.doom(a.id)
	close(a.hung)
}

// do takes as long as the work for a request. It reports whether the request is answered; if
// the instance hangs, it returns when the instance dies.
func (i *instance) do() bool {
	timer := time.NewTimer(time.Duration(i.work.Load()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-i.dead:
		return false
	}
	if wake.Closed(i.hung) {
		<-i.dead
		return false
	}
	return true
}
