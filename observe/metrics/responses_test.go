package metrics

import (
	"fmt"
	"testing"

	"sluice/test/verify"
)

// An app that answers with any status takes no room of sluice's reasons, and none is lost.
func TestResponsesAreBounded(t *testing.T) {
	r := NewRequests()
	r.ObserveResponse(1, 200, "no_peers") // beside those of the app with this status
	for range 2 {
		for status := 200; status < 600; status++ {
			r.ObserveResponse(0, status, "")
		}
	}
	for n := range 100 {
		r.ObserveResponse(0, 502, fmt.Sprint("reason_", n))
	}
	total, of := uint64(0), make(map[Response]bool)
	for _, response := range r.Responses() {
		total += response.Count
		response.Count = 0
		of[response] = true
	}
	verify.Equal(t, total, 1+2*400+100, "all")
	verify.That(t, len(of) <= 2*maxResponses+1, "%d series", len(of))
	for _, want := range []Response{
		{Status: "200"}, {Status: "200", Reason: "no_peers"}, {Status: "502", Reason: "reason_0"}, {Status: "other", Reason: "other"},
	} {
		verify.That(t, of[want], "%+v is not counted apart", want)
	}
}
