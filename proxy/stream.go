package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/observe/panics"
	"sluice/proxy/accesslog"
	"sluice/proxy/attempt"
	"sluice/proxy/proxyprotocol"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/route/places"
)

// Streams says to which service the connections of a listener with protocol tcp go. Of its
// routes, only the service, the split, which must not need a client's key, EndsTLS and
// Actions.Access count. It does not change; a reload makes another one.
type Streams struct {
	// Names has the routes by the server name in the ClientHello of TLS. nil: nothing
	// is read before a peer is connected.
	Names *route.Table
	// Other is for all other connections. nil: they are closed; then Names is not nil.
	Other *route.Route
}

// streamForwarded is the status of a stream in access log and metrics if a peer was
// connected.
const streamForwarded = 200

// A stream is a connection of a client that is forwarded without knowledge of its
// protocol. It implements [attempt.Exchange]: a try opens a connection to a peer, and
// if that succeeds, forwards until the end.
type stream struct {
	client  client // without options and downstream, which are of HTTP
	wire    socket.Wire
	ends    proxyprotocol.Addresses
	name    string         // of the server, from the ClientHello; "": none
	service *route.Service // nil: none
	query   balancer.Query
	token   balancer.Token // of the last try

	startTime      time.Time
	attempts       attempt.Loop
	tried          triedPeers
	connected      bool
	connectTime    time.Duration
	connectedAfter time.Duration    // from the start
	refusal        *refusal.Refusal // of the last try
	cut            error            // see tunnel.run
	denied         bool             // the mesh has ended the tunnel
	bytesIn        int64
	bytesOut       int64
}

func (s *stream) at() *listener { return s.client.listener }

// Parties and OnSweep implement sweepOwner of package socket.
func (s *stream) Parties() (client, peer any) { return places.BlockOf(s.client.remote), nil }
func (s *stream) OnSweep(int64) int64         { return socket.Never }

// serve forwards the connection until it ends.
func (s *stream) serve() {
	defer s.close()
	defer panics.Contain(panics.Tunnel, s.fail)
	if s.refusal = s.chooseService(); s.refusal == nil {
		s.forward()
	}
	if by := s.client.cutBy(); by != nil && !s.connected { // whatever it waited for
		s.refusal = by
	}
	s.finish()
}

// fail accounts for a stream that has panicked, and resets it.
func (s *stream) fail() {
	s.cut = errPanicked
	socket.ResetOnClose(s.wire.Conn)
	s.finish()
}

// chooseService sets the service, or returns why the client gets none.
func (s *stream) chooseService() *refusal.Refusal {
	streams := s.client.listener.Streams()
	if streams.Names == nil {
		return s.startRoute(streams.Other)
	}
	name, err := s.lookAtHello()
	streams = s.client.listener.Streams() // a reload may have been meanwhile
	matched := streams.Other
	switch {
	case err == nil:
		s.name = name
		if streams.Names == nil {
			break
		}
		var steps route.Steps
		if named := streams.Names.MatchName([]byte(name), &steps); named != nil {
			matched = named
		}
		if steps.Exceeded() {
			s.sendAlert()
			return refusal.RegexpBudget
		}
		if matched == nil {
			s.sendAlert()
			return refusal.NoServerName
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal.HelloTimeout
	case err != socket.ErrNoTLS && err != socket.ErrTooLong:
		return refusal.ClientGone
	case matched == nil:
		return refusal.NoTLS
	}
	return s.startRoute(matched)
}

// startRoute sets the service of a route, and ends the client's TLS if the route says so.
func (s *stream) startRoute(matched *route.Route) *refusal.Refusal {
	if r := s.setRoute(matched); r != nil || !matched.EndsTLS {
		return r
	}
	s.client.Entry.Arm(s.client.server.sweeper, s.client.server.options.Load().Timeouts.Head)
	err := s.handshake()
	if s.client.Entry.Disarm(); err != nil {
		s.client.server.log.Debug().Err(err).Str("listener", s.client.listener.Name).Str("client", s.client.address).Msg("TLS handshake failed")
		return refusal.ClientTLS
	}
	return nil
}

// handshake performs the TLS handshake. It fails if its only purpose is the answer to a challenge
// of ACME.
func (s *stream) handshake() (err error) {
	s.wire.TLS, err = s.client.server.handshakes.Accept(s.wire, &s.client.Entry, s.Block(), s.client.listener.TLS)
	if err != nil {
		return err
	}
	state := s.wire.TLS.ConnectionState()
	if p := state.NegotiatedProtocol; p != "" {
		return fmt.Errorf("the client has chosen the protocol %q", p)
	}
	s.name, s.client.session = state.ServerName, newTLSSession(state)
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	s.client.certificate = &clientCertificate{chains: state.VerifiedChains, revocations: s.client.listener.Revocations}
	return s.client.server.certify(&s.client, s)
}

// setRoute sets the service of a route, and its group. It returns a refusal if the route is not for
// the client.
func (s *stream) setRoute(matched *route.Route) *refusal.Refusal {
	s.service = matched.Service
	if matched.Split != nil {
		s.query.Group = matched.Split.Group(nil).ID()
	}
	if matched.Actions != nil {
		s.query.Criticality = matched.Actions.Criticality
	}
	client := s.client.remote.Unmap().WithZone("")
	if a := matched.Actions; a != nil && a.Access != nil && !a.Access.Allows(client) {
		return deniedBy(a.Access, matched)
	}
	return refusal.OfMaintenance(s.service.Pool.Maintenance.Load(), client)
}

// sendAlert tells the client that no service has its server name. It takes the
// ClientHello first: closing a connection with unread bytes resets it, and the alert
// would be lost.
func (s *stream) sendAlert() {
	borrowed := socket.RequestBuffers.Get().(*socket.Buffer)
	defer socket.RequestBuffers.Put(borrowed)
	_ = s.wire.Raw.Control(func(fd uintptr) {
		_, _ = socket.Receive(fd, borrowed.Bytes)
		_, _ = socket.Send(fd, socket.UnrecognizedName)
	})
}

// lookAtHello returns the server name in the ClientHello, which stays in the socket.
func (s *stream) lookAtHello() (name string, err error) {
	s.client.Entry.Arm(s.client.server.sweeper, s.client.server.options.Load().Timeouts.Head)
	defer s.client.Entry.Disarm()
	err = socket.AwaitPrelude(&s.client.Entry, s.wire.Raw, s.client.server.sweeper, socket.MaxClientHelloBytes, func(b []byte) (bool, error) {
		whole, err := socket.WholeClientHello(b)
		if !whole || err != nil {
			return false, err
		}
		if name, err = socket.ServerName(b); err != nil {
			return false, socket.ErrNoTLS
		}
		return true, nil
	})
	return name, err
}

// forward forwards the connection to a peer of the service until it ends.
func (s *stream) forward() {
	if s.service.Affinity != nil {
		s.query.Hash = max(1, xxhash.Sum64String(s.client.address))
	}
	_, err := s.attempts.Run(s.service, &s.query, s)
	for range s.attempts.Tries - 1 {
		s.service.Pool.Requests.Retry(s.client.Shard)
	}
	switch {
	case s.connected:
	case s.client.Gone.Load():
		s.refusal = refusal.ClientGone
	case s.refusal == refusal.Connect:
		s.refusal = refusal.OfConnect(s.service.Pool)
	case s.refusal == nil:
		s.refusal = refusal.OfPick(err, s.service.Pool, s.query.Group != 0)
	}
}

// Try implements [attempt.Exchange].
func (s *stream) Try(t balancer.Token) balancer.Outcome {
	s.token, s.refusal = t, nil
	s.tried.begin(t.Peer, t.Picked().Sub(s.startTime))
	dialStart := time.Now()
	ctx, end := s.Waiting(s.service.Timeouts.Connect + socket.SweepInterval)
	u, err := t.Peer.Transport.(upstream.Connector).DialStream(ctx, t.Picked(), s.service.Timeouts.Connect, s.client.Shard)
	if end(); err != nil {
		var o balancer.Outcome
		if d := denial(t, err, s.Waiting); d != nil {
			o, s.refusal = balancer.Outcome{Class: balancer.OutcomeDenied}, refusal.OfDenial(d)
		} else {
			o, s.refusal = dialFailure(err)
		}
		if s.client.Gone.Load() {
			o, s.refusal = balancer.Outcome{Class: balancer.OutcomeClientGone}, refusal.ClientGone
		}
		s.tried.last().end(o, s.startTime)
		return o
	}
	s.connected, s.connectTime = true, time.Since(dialStart)
	s.connectedAfter = time.Since(s.startTime)
	defer u.Finish(false)
	s.attempts.Connected(s.connectTime)
	if version := s.service.ProxyProtocol; version != 0 {
		// If it fails, the tunnel finds the broken connection.
		u.WriteFirst(proxyprotocol.Header(version, s.ends))
	}
	tunnel := socket.Tunnel{
		Client: socket.TunnelEnd{Wire: s.wire, Entry: &s.client.Entry}, Up: u.TunnelEnd(), Sweeper: s.client.server.sweeper,
		Timeouts: tunnelTimeouts(s.service.Timeouts), Requests: s.service.Pool.Requests, Shard: s.client.Shard,
	}
	s.cut = tunnel.Run(nil, &s.bytesIn, &s.bytesOut)
	s.denied = (s.cut != nil || s.bytesOut == 0) && s.client.cutBy() == nil && brokenByPeer(s.cut) && denial(t, s.cut, s.Waiting) != nil
	return balancer.Outcome{Class: balancer.OutcomeOK}
}

// Replayable implements [attempt.Exchange]: before a connection to a peer is open,
// nothing is read from the client.
func (s *stream) Replayable() bool { return true }

// Started implements [attempt.Exchange].
func (s *stream) Started() bool { return s.connected }

// Block implements [attempt.Exchange].
func (s *stream) Block() places.Block {
	return blockOf(s.client.remote, s.client.server.options.Load().TrustedProxies)
}

// Waiting implements [attempt.Exchange]. The context also ends when the server stops
// or the client leaves.
func (s *stream) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(s.client.server.ctx, timeout)
	if s.client.server.options.Load().KeepForGoneClients {
		return ctx, cancel
	}
	return upstream.CancelWhenGone(ctx, cancel, s.isGone)
}

// isGone records and reports whether the client has closed its connection without
// having sent bytes, as health checks do, or has reset it. A client that has sent bytes
// before it closed its sending side may wait for an answer.
func (s *stream) isGone() bool {
	gone := true // if abort has closed the connection
	_ = s.wire.Raw.Control(func(fd uintptr) { gone = socket.Ended(fd, false) })
	if gone {
		s.client.Gone.Store(true)
	}
	return gone
}

// close closes the connection.
func (s *stream) close() {
	s.client.Entry.Remove()
	s.client.Entry.Conn.Close()
	s.client.server.admission.leave(s.client.remote)
	s.client.server.closed(s)
}

// drain implements connection: a stream goes on.
func (s *stream) drain(int64) {}

// interrupt implements connection.
func (s *stream) interrupt() { s.abort() }

// abort implements connection: it resets the connection.
func (s *stream) abort() {
	socket.ResetOnClose(s.wire.Conn)
	s.wire.Conn.Close()
}

// finish records the stream in the metrics and the access log.
func (s *stream) finish() {
	status, reason, by := streamForwarded, cutReason(s.cut, s.service), s.client.cutBy()
	switch {
	case s.denied && s.bytesOut == 0: // no byte of the peer came before
		s.refusal = refusal.Intention
	case s.denied:
		reason = refusal.Intention.Reason
	case reason != "" && by != nil:
		reason = by.Reason
	}
	if s.refusal != nil {
		status, reason = s.refusal.Status, s.refusal.Reason
	}
	duration := time.Since(s.startTime)
	requests := s.client.server.requests
	if s.service != nil {
		requests = s.service.Pool.Requests
	}
	requests.Observe(s.client.Shard, status, duration, 0, 0) // the tunnel has counted the bytes
	requests.ObserveResponse(s.client.Shard, status, reason)
	log := s.client.server.options.Load().AccessLog
	if !log.Enabled() {
		return
	}
	// A literal would be built in a copy, which makes the stack of each connection grow.
	var entry accesslog.Entry
	entry.Time, entry.Duration, entry.Waited, entry.Connect = s.startTime, duration, duration, s.connectTime
	entry.Client, entry.Host, entry.Proto = []byte(s.client.address), []byte(s.name), accesslog.ProtoTCP
	entry.Status, entry.Reason, entry.Attempts, entry.Failed = int64(status), reason, int64(s.attempts.Tries), cutBySluice(reason)
	entry.BytesIn, entry.BytesOut = s.bytesIn, s.bytesOut
	s.client.session.describe(&entry)
	if s.connected {
		entry.Waited = s.connectedAfter
	}
	if s.service != nil {
		entry.Service = s.service.Name
	}
	if s.token.Peer != nil {
		entry.Peer = s.token.Peer.Address()
		entry.Group = s.token.Peer.Group().Name()
	}
	if s.tried.count > 1 {
		entry.Tries = s.tried.appendTries(nil, duration)
	}
	log.Log(s.client.Shard, &entry)
}

// dialFailure classifies an error of opening a connection to a peer.
func dialFailure(err error) (balancer.Outcome, *refusal.Refusal) {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return balancer.Outcome{Class: balancer.OutcomeLocal}, refusal.NoDescriptors
	case errors.Is(err, net.ErrClosed): // the transport is closed
		return balancer.Outcome{Class: balancer.OutcomeLocal}, refusal.Connect
	}
	if lack := (certificates.LackError{}); errors.As(err, &lack) {
		return balancer.Outcome{Class: balancer.OutcomeLocal}, refusal.NotInMesh
	}
	var shared upstream.SharedError
	o := balancer.Outcome{Class: balancer.OutcomeConnectFailure, Details: balancer.Details{
		Shared: errors.As(err, &shared),
		// ENOENT is of a Unix socket.
		Absent: errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT),
	}}
	if _, ok := errors.AsType[upstream.HandshakeError](err); ok {
		return o, refusal.PeerTLS
	}
	return o, refusal.Connect
}

// startStream implements begin for a listener with protocol tcp.
func (s *Server) startStream(at *listener, conn socket.Conn, of proxyprotocol.Addresses) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	remote := of.Client.Addr()
	c := &stream{
		client: client{Client: upstream.Client{Shard: s.shards.Add(1)}, server: s, listener: at, remote: remote, address: addressText(remote)},
		wire:   socket.Wire{Conn: conn, Raw: raw}, ends: of, startTime: time.Now(),
	}
	c.client.Entry.Owner = c
	return s.open(c, func() {
		s.sweeper.Add(&c.client.Entry, conn, c.client.Shard)
		go c.serve()
	})
}
