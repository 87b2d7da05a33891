// Package proxy forwards requests: it accepts client connections, matches each
// request to a route, picks a peer from the pool of the route and forwards the
// request and the response.
//
//	accept → clientConn → route.Table → attempt.Run → balancer.Pool.Pick
//	                                       │
//	                                       └→ exchange.Try → upstream.Conn → Token.Done
//
// An exchange uses a downstream (the client's side) and an [upstream.Conn] (the peer's
// side). Only these two know the wire protocol.
//
// One goroutine serves all requests of a client connection in sequence; an idle
// connection has no goroutine (see [socket.IdleSet]). [Server] owns the client connections;
// an [upstream.Connector] owns the connections to one peer. Timeouts are coarse (see
// [socket.Sweeper]): a request sets no timer.
//
// The data plane uses the socket instead of net.Conn: see package [socket].
package proxy

import (
	"cmp"
	"errors"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/transfer"
	"sluice/route"
)

// A phase is a step of what is done with a request.
type phase struct {
	// do returns nil, and the next phase follows, or why the request ends there, with an answer by
	// sluice.
	do func(*exchange) *refusal.Refusal
	// ask, if not nil, takes the place of do for a request that nobody sends: do would wait, count
	// it, or need what is not known of it.
	ask func(*asked) *refusal.Refusal
}

// phases are what is done with a request, in this order.
//
// Before them, a listener has accepted the client's connection (Server.start), its bytes were
// scanned as a head (request.scan and http2Stream.scan, the two ways in), and begin has decided
// who has sent the request, and whom to believe about it (identity.go). After them comes the
// finish (finish.go). A copy for a mirror has passed them with its request; then it makes one
// try of its own (mirror.go). Who only asks what would become of a request goes through them too
// (explain.go).
var phases = [...]phase{
	{do: answerChallenge, ask: (*asked).challenge},
	{do: requireHTTPS},
	{do: chooseRoute},
	{do: endLoops},
	{do: prepare, ask: (*asked).prepare},
	{do: keepBody, ask: (*asked).pass},
	{do: retarget, ask: (*asked).pass},
	{do: mirror, ask: (*asked).pass},
	{do: forward, ask: (*asked).forward},
}

// preparations are the phases in which a request becomes what its route makes of it. They come
// again for another target: see retarget.
var preparations = [...]phase{
	{do: restrictAddresses},
	{do: restrictCertificates},
	{do: keepForMaintenance},
	{do: limitRate, ask: (*asked).limitRate},
	{do: editTarget},
	{do: limitBody, ask: (*asked).limitBody},
	{do: requirePassword, ask: (*asked).authenticate},
	{do: requireToken, ask: (*asked).pass},
	{do: askAuthServer, ask: (*asked).askAuthServer},
	{do: answerDirectly},
	{do: answerByHandler, ask: (*asked).handle},
	{do: followChain},
	{do: choosePeers},
	{do: shed, ask: (*asked).pass},
}

// serve serves the request, and reports whether its client is there: it may be that the response is
// cut.
func (x *exchange) serve() bool {
	x.begin()
	for i := range phases {
		if r := phases[i].do(x); r != nil {
			return x.refuse(r)
		}
	}
	x.finish()
	return true
}

// prepare does the preparations.
func prepare(x *exchange) *refusal.Refusal {
	for i := range preparations {
		if r := preparations[i].do(x); r != nil {
			return r
		}
	}
	return nil
}

// chooseRoute finds the route, its service and its actions, and with the service the deadline of
// a gRPC call. A path that a service could read as one of a restricted route has none.
func chooseRoute(x *exchange) *refusal.Refusal {
	b, table := x.request.bytes(), x.request.client.listener.routing()
	x.request.routing = table
	host, path := x.request.head.Authority(b), x.request.head.Path(b)
	found := table.Match(host, path, &x.request)
	x.remember(found)
	if found == nil {
		if x.request.client.server.lacking.Load() {
			return refusal.NotReady
		}
		return refusal.NoRoute
	}
	x.request.endpoint = found.Endpoint(uint8(x.request.head.Method), path, x.request.identity.grpc)
	matched := found
	if x.route.divided = matched.Weighted; x.route.divided != nil {
		matched = x.route.chooseTarget(x.route.divided, b)
	}
	x.route.matched = matched
	if r := x.route.take(matched); r != nil {
		return r
	}
	evades := table.Evades(host, path, &x.request, found, x.request.client.options.KeepDotSegments)
	if x.request.steps.Exceeded() {
		return refusal.RegexpBudget
	}
	if evades {
		return refusal.UnsafePath
	}
	return nil
}

// restrictAddresses refuses clients that the route is not for, by their address, and those whose
// certificate is revoked.
func restrictAddresses(x *exchange) *refusal.Refusal {
	a, s := x.route.actions, &x.request.identity
	switch {
	case s.revoked:
		return refusal.Revoked
	case a.Access != nil && !a.Access.Allows(s.client):
		return deniedBy(a.Access, x.route.matched)
	}
	return nil
}

// deniedBy returns why a does not allow a client of r.
func deniedBy(a *route.Access, r *route.Route) *refusal.Refusal {
	if a.Nobody() && r.Class != route.ClassDocument {
		return refusal.TagDenied
	}
	return refusal.ClientDenied
}

// restrictCertificates refuses clients that the route is not for, by their certificate. It answers
// preflights, which come without the certificate and the credentials of who may use it.
func restrictCertificates(x *exchange) *refusal.Refusal {
	a, s := x.route.actions, &x.request.identity
	switch {
	case a.CORS != nil && isPreflight(&x.request):
		return answerPreflight(&x.request, a.CORS)
	case a.ClientCertificate && s.certificate == nil:
		return refusal.NoCertificate
	case len(a.CertificateNames) > 0 && !s.certificate.HasOneOf(a.CertificateNames):
		return refusal.OtherCertificate
	}
	return nil
}

// keepForMaintenance refuses requests to a service that operators work on, unless the
// authentication server is to choose the service first.
func keepForMaintenance(x *exchange) *refusal.Refusal {
	if f := x.route.actions.ForwardAuth; f != nil && f.DecidesService {
		return nil
	}
	return x.route.maintenance()
}

// editTarget edits the path, and redirects to another URL. Heads are edited as they are written
// (edit.go).
func editTarget(x *exchange) *refusal.Refusal {
	a, b := x.route.actions, x.request.bytes()
	if !a.Path.Empty() {
		var r *refusal.Refusal
		if x.route.stripped, r = x.route.editPath(&a.Path, b); r != nil {
			return r
		}
	}
	if a.Redirect == nil {
		return nil
	}
	r := x.route.redirect(b)
	if x.request.steps.Exceeded() {
		return refusal.RegexpBudget
	}
	if r == nil && x.route.service == nil {
		return refusal.RedirectLoop
	}
	return r
}

// limitBody refuses a body that is known to be longer than the route allows. See upload for the
// others.
func limitBody(x *exchange) *refusal.Refusal {
	if limit := x.route.actions.BodyLimit; limit > 0 && max(x.request.head.ContentLength, int64(x.request.bodyLength)) > limit {
		return refusal.Of(http1.ErrBodyTooLong)
	}
	return nil
}

// choosePeers chooses which peers are picked from: a group, and who has an affinity to the client.
func choosePeers(x *exchange) *refusal.Refusal {
	s := x.route.way.Split
	switch {
	case x.route.group != "":
		if !x.route.takeGroup(s) {
			return refusal.AuthChoice
		}
	case s != nil:
		x.route.chooseGroup(s, x.request.bytes())
	}
	if a := x.route.service.Affinity; a != nil {
		x.route.query.Hash = affinity(&x.request, a, x.route.service.Pool.Snapshot().All, x.request.bytes())
	}
	x.route.query.Own = x.request.client.OwnPeer()
	return nil
}

// shed refuses the request before any of its body is read, if its service is overloaded.
func shed(x *exchange) *refusal.Refusal {
	x.route.query.Criticality = x.route.actions.Criticality
	if x.route.service.Pool.Sheds(&x.route.query) {
		return refusal.Overload
	}
	return nil
}

// keepBody keeps a short body, so that the request can be sent again.
func keepBody(x *exchange) *refusal.Refusal {
	if x.request.streaming && !x.tries.bufferBody() {
		return cmp.Or(x.request.client.cutBy(), x.tries.lastRefusal, refusal.ClientGone)
	}
	if m := x.body.upload.copy; m != nil && !x.request.streaming { // the copy was to get it as it is forwarded
		x.body.upload.copy = m.add(transfer.Piece{Text: x.body.bytes, Length: int64(len(x.body.bytes)), Last: true})
	}
	return nil
}

// retarget prepares the request for another target of its route, or of the discovery chain of its
// service, if the one that it has taken has lost its last usable peer since: while the body
// arrived, or somebody was asked.
func retarget(x *exchange) *refusal.Refusal {
	for x.route.hasOther() {
		r := x.route.chooseAgain()
		if r == nil {
			r = prepare(x)
		}
		if r == nil {
			r = keepBody(x)
		}
		if r != nil {
			x.body.upload.wait()
			return r
		}
	}
	return nil
}

// forward picks peers, tries them, and relays the answer of one of them.
func forward(x *exchange) *refusal.Refusal {
	c := x.request.client
	x.body.trailer = x.route.filterTrailer(x.body.trailer, reserved.ToPeers)
	outcome, err := x.tries.attempts.Run(x.route.service, &x.route.query, x)
	for err != nil && x.tries.attempts.Tries == 0 && x.tries.endOfWait(nil) == nil && (x.retargeted || x.route.hasOther()) {
		x.retargeted = false // if the other target has no peer any more, the wait goes on
		if r := retarget(x); r != nil {
			return r
		}
		x.body.trailer = x.route.filterTrailer(x.body.trailer, reserved.ToPeers)
		outcome, err = x.tries.attempts.Run(x.route.service, &x.route.query, x)
	}
	for range x.tries.attempts.Tries - 1 {
		x.route.service.Pool.Requests.Retry(c.Shard)
	}
	x.body.upload.wait()
	if x.answer.answered {
		return nil
	}
	if cut := c.cutBy(); cut != nil {
		return cut
	}
	switch {
	case (err != nil || outcome.Class == balancer.OutcomeClientGone) && c.Gone.Load(): // whatever became of a connection before
		return refusal.ClientGone
	case err != nil && x.request.deadlinePassed():
		return refusal.Deadline
	case x.tries.lastRefusal == refusal.Connect:
		return refusal.OfConnect(x.route.service.Pool)
	case x.tries.lastRefusal != nil:
		return x.tries.lastRefusal
	case outcome.Class == balancer.OutcomeClientGone:
		return refusal.ClientGone
	case err != nil:
		return refusal.OfPick(err, x.route.service.Pool, x.route.query.Group != 0)
	}
	return nil
}

// refuse ends the exchange with r, and reports whether the client got it.
func (x *exchange) refuse(r *refusal.Refusal) bool {
	x.answer.status = r.Status
	if r == refusal.ClientGone {
		x.answer.interrupted = r.Reason
		x.finish()
		return false
	}
	x.answer.refused = r.Reason
	defer r.Sent() // also if there is a panic
	err := x.answer.send(r)
	x.finish()
	return err == nil
}

// ofMalformed returns the refusal of a request that http1 has rejected.
func ofMalformed(err error) *refusal.Refusal {
	var malformed *http1.Error
	if !errors.As(err, &malformed) {
		malformed = http1.ErrResponse
	}
	return refusal.Of(malformed)
}
