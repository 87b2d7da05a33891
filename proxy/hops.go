package proxy

import (
	"bytes"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
)

// notForwarded returns the refusal of a request that must not be forwarded, or nil.
// b is the head.
func (x *httpExchange) notForwarded(b []byte) *refusal.Refusal {
	switch {
	case x.head.Method == http1.MethodOptions && x.maxForwards() == 0:
		return refusal.MaxForwards
	case x.head.Has(http1.NameVia) && x.hops(b) >= refusal.MaxHops:
		return refusal.Loop
	case x.standing.trusted && x.head.Has(http1.NameXForwardedFor) && x.addresses(b) > refusal.MaxAddresses:
		return refusal.TooManyAddresses
	}
	return nil
}

// hops returns how many times the request has passed any sluice.
func (x *httpExchange) hops(b []byte) int {
	n := 0
	for element := range x.head.Elements(b, http1.NameVia) {
		// RFC 9110, section 7.6.3: protocol, pseudonym, optional comment.
		_, by, _ := bytes.Cut(element, space)
		by, _, _ = bytes.Cut(by, space)
		if http1.EqualFold(by, "sluice") {
			n++
		}
	}
	return n
}

var space = []byte(" ")

// addresses returns the number of addresses in X-Forwarded-For.
func (x *httpExchange) addresses(b []byte) int {
	n := 0
	for range x.head.Elements(b, http1.NameXForwardedFor) {
		n++
	}
	return n
}
