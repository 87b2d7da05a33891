package proxy

import (
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
)

// errorPage returns the page for an answer of sluice's own with a status: the route's, else the one
// for all routes; nil: there is none.
func (x *chosenRoute) errorPage(status int, json bool) *route.Page {
	if status < 400 {
		return nil
	}
	if page := x.actions.ErrorPages.Of(status, false, json); page != nil {
		return page
	}
	return x.request.client.listener.routing().ErrorPages.Of(status, false, json)
}

var declinedHere = refusal.New(refusal.Declined.Status, refusal.Declined.Reason, "the route answers itself, as if no WebSocket was asked for")

// answerDirectly answers the requests of a route that does.
func answerDirectly(x *exchange) *refusal.Refusal {
	if x.route.actions.DirectResponse == nil {
		return nil
	}
	d := x.route.actions.DirectResponse
	if x.request.wouldOpen(d.Status) {
		return declinedHere
	}
	r := refusal.New(d.Status, "direct_response", "the route answers itself")
	total := 0
	for i := range d.Fields {
		value := d.Fields[i].Append(nil, &x.route)
		http1.Clean(value)
		if total += len(value); total > socket.RequestBufferBytes {
			return refusal.Of(http1.ErrTargetTooLong)
		}
		r = r.With(d.Fields[i].Name, string(value))
	}
	switch {
	case d.Page != nil:
		return r.Showing(d.Page.ContentType, d.Page.Bytes())
	case d.Status < 400:
		return r.Showing("", nil)
	}
	return r.With("Vary", "Accept") // for caches, if the route lets them keep it: see answer.send
}

// pageForPeer returns the page that the client gets in place of the body of the peer's answer; nil:
// none. varies: that depends on whether the client asks for JSON.
func pageForPeer(x *answer) (page *route.Page, varies bool) {
	if x.route.actions.ErrorPages == nil || x.response.Status < 400 || x.request.identity.grpc {
		return nil, false
	}
	if len(x.response.Fields())+len(x.route.actions.ResponseHeaders.Added) > maxPeerFields {
		return nil, false
	}
	page = x.route.actions.ErrorPages.Of(x.response.Status, true, false)
	forJSON := x.route.actions.ErrorPages.Of(x.response.Status, true, true)
	varies = page != forJSON
	if x.request.wantsJSON() {
		return forJSON, varies
	}
	return page, varies
}

// maxPeerFields is the number of fields of a peer's answer that a page can be shown with.
const maxPeerFields = 80

// answerWith answers with a page in place of the body of the peer's answer, whose head is text. The
// status and the fields that say nothing of the body stay. varies is as of pageForPeer. complete:
// all of the peer's answer was read.
func answerWith(page *route.Page, varies bool, x *answer, u upstream.Conn, text []byte) (complete bool, err error) {
	r := refusal.New(x.response.Status, "error_page", "")
	kept := [][2]string{{"Content-Type", page.ContentType}}
	if varies {
		kept = append(kept, [2]string{"Vary", "Accept"})
	}
	for _, f := range x.response.Fields() {
		name := f.FieldName(text)
		switch {
		case hasAlike(x.route.actions.ResponseHeaders.Dropped, name), x.route.replacesForClient(name):
			continue
		case explains(x.response.Status, f.Name, name):
			if f.Name == http1.NameUpgrade {
				kept = append(kept, [2]string{"Connection", "Upgrade"})
			}
		case f.Nominated || x.request.reserved().Drop(f.Name, name, reserved.ToClients) || ofBody(f.Name, name):
			continue
		}
		kept = append(kept, [2]string{string(name), string(f.Value(text))})
	}
	added, total := x.route.actions.ResponseHeaders.Added, len(text)
	for i := range added {
		value := added[i].Append(nil, x.route)
		http1.Clean(value)
		if total += len(value); total > maxEditedHead {
			return false, http1.ErrResponseTooLong
		}
		kept = append(kept, [2]string{added[i].Name, string(value)})
	}
	for line := range http1.Lines(x.tries.appendCookies(nil)) {
		kept = append(kept, [2]string{string(http1.LineName(line)), string(http1.LineValue(line))})
	}
	complete = dropAnswer(x, u)
	x.refused, x.begun, x.answered = r.Reason, true, true
	if x.send(r.Passing(kept, page.Bytes())) != nil {
		return false, errClientWrite
	}
	return complete, nil
}

// explains reports whether a field of a response is a part of what its status says: which length
// there is in place of the range, or which protocol is required (RFC 9110, sections 15.5.17 and
// 15.5.22).
func explains(status int, n http1.Name, name []byte) bool {
	return status == 416 && http1.EqualFold(name, "content-range") || status == 426 && n == http1.NameUpgrade
}

// ofBody reports whether a field of a response is about its body.
func ofBody(n http1.Name, name []byte) bool {
	switch n {
	case http1.NameContentLength, http1.NameContentType, http1.NameTrailer:
		return true
	}
	for _, other := range [...]string{"content-", "etag", "last-modified", "accept-ranges", "digest", "repr-digest"} {
		if len(name) >= len(other) && http1.EqualFold(name[:len(other)], other) && (len(name) == len(other) || other == "content-") {
			return true
		}
	}
	return false
}

// maxDropped is the length of a body that is read for nothing but the connection.
const maxDropped = 64 << 10

// dropAnswer reads the rest of a short answer that has arrived, so that its connection can be used
// again, and reports whether it did.
func dropAnswer(x *answer, u upstream.Conn) bool {
	for left, end := int64(maxDropped), time.Now().Add(maxFlushDelay); left > 0; {
		p, err := u.ReadBody(&x.body.buffers, true)
		if err != nil || p.Last {
			return err == nil
		}
		left -= p.Length
		patience := time.Until(end) // for all pieces: the client waits for its page
		if patience <= 0 {
			return false
		}
		if pauses, err := u.BodyPauses(&x.body.buffers, patience); err != nil || pauses {
			return false
		}
	}
	return false
}
