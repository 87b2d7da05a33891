package proxy

import (
	"bytes"

	"sluice/http1"
)

const (
	// maxHops is how many times a request may come through sluice. An edge in
	// front of an inner sluice makes two; more than a few are a loop.
	maxHops = 5
	// maxAddresses is how many addresses X-Forwarded-For may have: what is passed
	// on of them must not be cut short, since the last ones are those that proxies
	// vouch for.
	maxAddresses = 100
)

// notForwarded returns why the request, whose head is in b, goes no further, or
// nil.
func (x *httpExchange) notForwarded(b []byte) *refusal {
	switch {
	case x.head.Method == http1.MethodOptions && x.maxForwards() == 0:
		return refusalMaxForwards
	case x.head.Has(http1.NameVia) && x.hops(b) >= maxHops:
		return refusalLoop
	case x.client.trusted && x.head.Has(http1.NameXForwardedFor) && x.addresses(b) > maxAddresses:
		return refusalTooManyAddresses
	}
	return nil
}

// hops returns how many times the request has come through sluice, this one or
// another.
func (x *httpExchange) hops(b []byte) int {
	n := 0
	for element := range x.head.Elements(b, http1.NameVia) {
		// RFC 9110, section 7.6.3: protocol, pseudonym, perhaps a comment.
		_, by, _ := bytes.Cut(element, space)
		by, _, _ = bytes.Cut(by, space)
		if http1.EqualFold(by, "sluice") {
			n++
		}
	}
	return n
}

var space = []byte(" ")

// addresses returns how many addresses a trusted client names.
func (x *httpExchange) addresses(b []byte) int {
	n := 0
	for range x.head.Elements(b, http1.NameXForwardedFor) {
		n++
	}
	return n
}
