package proxy

import (
	"bytes"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
)

const challengePrefix = "/.well-known/acme-challenge/"

// challenge returns the response to a present ACME challenge (RFC 8555, section 8.3);
// nil: the request, with the head b, is none.
func (x *httpExchange) challenge(b []byte) *refusal.Refusal {
	answer := x.client.listener.challenge
	if answer == nil || x.head.Method != http1.MethodGet || x.upgrade || !bytes.HasPrefix(x.head.Path(b), []byte(challengePrefix)) {
		return nil
	}
	body, ok := answer(string(x.head.Authority(b)), string(x.head.Path(b)))
	if !ok {
		return nil
	}
	return refusal.New(200, refusal.ChallengeReason, string(body))
}
