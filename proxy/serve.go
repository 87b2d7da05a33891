// Package proxy forwards requests: it accepts client connections, matches each
// request to a route, picks a peer from the pool of the route and forwards the
// request and the response.
//
//	accept → clientConn → route.Table → attempt.Run → balancer.Pool.Pick
//	                                       │
//	                                       └→ answeredRequest.Try → upstream.Conn → Token.Done
//
// An httpExchange uses a downstream (the client's side) and an [upstream.Conn] (the peer's
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
	"context"
	"errors"
	"strconv"
	"time"

	"sluice/balancer"
	"sluice/proxy/attempt"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/transfer"
)

// An httpExchange is a request and its response, between a downstream and upstreams.
type httpExchange struct {
	serving bool // begin was called, and account was not
	other   bool // the wait for the first peer ended because another target had one
	answeredRequest
}

// begin resets the exchange and starts the clock of a request.
func (x *httpExchange) begin() {
	x.answeredRequest.begin()
	x.serving, x.other = true, false
}

// close releases what the exchange holds.
func (x *httpExchange) close() {
	x.dropBody(x.client)
	x.client, x.matched, x.divided, x.way, x.splitter = nil, nil, nil, nil, nil
	x.service, x.actions, x.token = nil, nil, balancer.Token{}
	clear(x.charged[:cap(x.charged)])
	x.routing, x.requestID, x.held, x.attempts = nil, nil, nil, attempt.Loop{}
	x.tried.clear()
	x.dropLarge()
	x.GiveBack()
	x.query = balancer.Query{}
}

// phases are what is done with a request, in this order. A phase returns nil, and the next one
// follows, or why the request ends there, with an answer by sluice.
//
// Before them, a listener has accepted the client's connection (Server.start), its bytes were
// scanned as a head (request.scan and http2Stream.scan, the two ways in), and begin has decided
// who has sent the request, and whom to believe about it (identity.go). After them comes the
// account (account.go). A copy for a mirror has passed them with its request; then it makes one
// try of its own (mirror.go).
var phases = [...]func(*httpExchange) *refusal.Refusal{
	(*httpExchange).answerChallenge,
	(*httpExchange).requireHTTPS,
	(*httpExchange).chooseRoute,
	(*httpExchange).endLoops,
	(*httpExchange).prepare,
	(*httpExchange).keepBody,
	(*httpExchange).retarget,
	(*httpExchange).mirror,
	(*httpExchange).forward,
}

// preparations are the phases in which a request becomes what its route makes of it. They come again for another target: see
// retarget.
var preparations = [...]func(*httpExchange) *refusal.Refusal{
	(*httpExchange).restrictClients,
	(*httpExchange).keepForMaintenance,
	(*httpExchange).limitRate,
	(*httpExchange).editTarget,
	(*httpExchange).limitBody,
	(*httpExchange).requirePassword,
	(*httpExchange).requireToken,
	(*httpExchange).askAuthServer,
	(*httpExchange).answerDirectly,
	(*httpExchange).followChain,
	(*httpExchange).choosePeers,
	(*httpExchange).shed,
}

// serve serves the request, and reports whether its client is there: it may be that the response is cut.
func (x *httpExchange) serve() bool {
	x.begin()
	for _, phase := range phases {
		if r := phase(x); r != nil {
			return x.refuse(r)
		}
	}
	x.account()
	return true
}

// prepare does the preparations.
func (x *httpExchange) prepare() *refusal.Refusal {
	for _, phase := range preparations {
		if r := phase(x); r != nil {
			return r
		}
	}
	return nil
}

// chooseRoute finds the route, its service and its actions, and with the service the deadline of
// a gRPC call. A path that a service could read as one of a restricted route has none.
func (x *httpExchange) chooseRoute() *refusal.Refusal {
	b, table := x.bytes(), x.client.listener.routing()
	x.routing = table
	host, path := x.head.Authority(b), x.head.Path(b)
	found := table.Match(host, path, &x.request)
	if found == nil {
		return x.client.server.withoutRoute()
	}
	x.endpoint = found.Endpoint(uint8(x.head.Method), path, x.standing.grpc)
	matched := found
	if x.divided = matched.Weighted; x.divided != nil {
		matched = x.chooseTarget(x.divided, b)
	}
	x.matched = matched
	if r := x.take(matched); r != nil {
		return r
	}
	evades := table.Evades(host, path, &x.request, found, x.client.options.KeepDotSegments)
	if x.steps.Exceeded() {
		return refusal.RegexpBudget
	}
	if evades {
		return refusal.UnsafePath
	}
	return nil
}

// restrictClients refuses clients that the route is not for, and those whose certificate is revoked. It answers preflights, which come without the
// certificate and the credentials of who may use it.
func (x *httpExchange) restrictClients() *refusal.Refusal {
	a, s := x.actions, &x.standing
	switch {
	case s.revoked:
		return refusal.Revoked
	case a == nil:
	case a.Access != nil && !a.Access.Allows(s.client):
		return refusal.ClientDenied
	case a.CORS != nil && isPreflight(&x.request):
		return answerPreflight(&x.request, a.CORS)
	case a.ClientCertificate && s.certificate == nil:
		return refusal.NoCertificate
	case len(a.CertificateNames) > 0 && !s.certificate.HasOneOf(a.CertificateNames):
		return refusal.OtherCertificate
	}
	return nil
}

// keepForMaintenance refuses requests to a service that operators work on.
func (x *httpExchange) keepForMaintenance() *refusal.Refusal {
	if x.service == nil {
		return nil
	}
	return refusal.OfMaintenance(x.service.Pool.Maintenance(), x.standing.client)
}

// refuseOver returns the refusal of a request for which a rate limit has nothing left for a while.
func refuseOver(wait time.Duration) *refusal.Refusal {
	if wait <= 0 {
		return nil
	}
	seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
	return refusal.RateLimited.With("Retry-After", seconds)
}

// editTarget edits the path, and redirects to another URL. Heads are edited as they are written
// (edit.go).
func (x *httpExchange) editTarget() *refusal.Refusal {
	a, b := x.actions, x.bytes()
	if a == nil {
		return nil
	}
	if !a.Path.Empty() {
		var r *refusal.Refusal
		if x.stripped, r = x.editPath(&a.Path, b); r != nil {
			return r
		}
	}
	if a.Redirect == nil {
		return nil
	}
	r := x.redirect(b)
	if x.steps.Exceeded() {
		return refusal.RegexpBudget
	}
	if r == nil && x.service == nil {
		return refusal.RedirectLoop
	}
	return r
}

// limitBody refuses a body that is known to be longer than the route allows. See upload for the
// others.
func (x *httpExchange) limitBody() *refusal.Refusal {
	if x.actions == nil {
		return nil
	}
	if limit := x.actions.BodyLimit; limit > 0 && max(x.head.ContentLength, int64(x.bodyLength)) > limit {
		return refusal.Of(http1.ErrBodyTooLong)
	}
	return nil
}

// choosePeers chooses which peers are picked from: a group, and who has an affinity to the client.
func (x *httpExchange) choosePeers() *refusal.Refusal {
	if s := x.way.Split; s != nil {
		x.chooseGroup(s, x.bytes())
	}
	if a := x.service.Affinity; a != nil {
		x.query.Hash = x.affinity(a, x.service.Pool.Snapshot().All, x.bytes())
	}
	x.query.Own = x.client.OwnPeer()
	return nil
}

// shed refuses the request before any of its body is read, if its service is overloaded.
func (x *httpExchange) shed() *refusal.Refusal {
	if x.actions != nil {
		x.query.Criticality = x.actions.Criticality
	}
	if x.service.Pool.Sheds(&x.query) {
		return refusal.Overload
	}
	return nil
}

// keepBody keeps a short body, so that the request can be sent again.
func (x *httpExchange) keepBody() *refusal.Refusal {
	if x.streaming && !x.bufferBody() {
		return cmp.Or(x.client.cutBy(), x.lastRefusal, refusal.ClientGone)
	}
	if m := x.upload.copy; m != nil && !x.streaming { // the copy was to get it as it is forwarded
		x.upload.copy = m.add(transfer.Piece{Text: x.body, Length: int64(len(x.body)), Last: true})
	}
	return nil
}

// retarget prepares the request for another target of its route, or of the discovery chain of its service, if the one that it has
// taken has lost its last usable peer since: while the body arrived, or somebody was asked.
func (x *httpExchange) retarget() *refusal.Refusal {
	for x.hasOther() {
		r := x.chooseAgain()
		if r == nil {
			r = x.prepare()
		}
		if r == nil {
			r = x.keepBody()
		}
		if r != nil {
			x.upload.wait()
			return r
		}
	}
	return nil
}

// Waiting implements [attempt.Exchange]. The wait for the first peer also ends when another target has one: forward goes there.
func (x *httpExchange) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	if x.attempts.Tries > 0 || x.divided == nil && x.splitter == nil {
		return x.answeredRequest.Waiting(timeout)
	}
	return x.waitingUnless(timeout, func() bool {
		x.other = x.hasOther()
		return x.other
	})
}

// forward picks peers, tries them, and relays the answer of one of them.
func (x *httpExchange) forward() *refusal.Refusal {
	c := x.client
	x.bodyTrailer = x.filterTrailer(x.bodyTrailer, reserved.ToPeers)
	outcome, err := x.attempts.Run(x.service, &x.query, x)
	for err != nil && x.attempts.Tries == 0 && x.endOfWait(nil) == nil && (x.other || x.hasOther()) {
		x.other = false // if the other target has no peer any more, the wait goes on
		if r := x.retarget(); r != nil {
			return r
		}
		x.bodyTrailer = x.filterTrailer(x.bodyTrailer, reserved.ToPeers)
		outcome, err = x.attempts.Run(x.service, &x.query, x)
	}
	for range x.attempts.Tries - 1 {
		x.service.Pool.Requests().Retry(c.Shard)
	}
	x.upload.wait()
	if x.answered {
		return nil
	}
	if cut := c.cutBy(); cut != nil {
		return cut
	}
	switch {
	case (err != nil || outcome.Class == balancer.OutcomeClientGone) && c.Gone.Load(): // whatever became of a connection before
		return refusal.ClientGone
	case err != nil && x.deadlinePassed():
		return refusal.Deadline
	case x.lastRefusal == refusal.Connect:
		return refusal.OfConnect(x.service.Pool)
	case x.lastRefusal != nil:
		return x.lastRefusal
	case outcome.Class == balancer.OutcomeClientGone:
		return refusal.ClientGone
	case err != nil:
		return refusal.OfPick(err, x.service.Pool, x.query.Group != 0)
	}
	return nil
}

// refuse ends the exchange with r, and reports whether the client got it.
func (x *httpExchange) refuse(r *refusal.Refusal) bool {
	x.status = r.Status
	if r == refusal.ClientGone {
		x.interrupted = r.Reason
		x.account()
		return false
	}
	x.refused = r.Reason
	err := x.answer(r)
	x.account()
	return err == nil
}

// refuseMalformed answers a request that http1 has rejected.
func (x *httpExchange) refuseMalformed(err error) {
	var malformed *http1.Error
	if !errors.As(err, &malformed) {
		malformed = http1.ErrResponse
	}
	x.refuse(refusal.Of(malformed))
}
