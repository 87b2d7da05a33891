package recent

import (
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

// The sample is bounded, and who adds as often as another one keeps as much room.
func TestRequests(t *testing.T) {
	var r Requests
	begin := time.Unix(1000, 0)
	for i := range 20 * maxRequests {
		r.Add(Request{Time: begin.Add(time.Duration(i)), Listener: []string{"a", "b"}[i%2], Head: []byte("x")})
	}
	r.Add(Request{Time: begin, Listener: "long", Head: []byte(strings.Repeat("x", MaxHead+1))})
	counts := make(map[string]int)
	before := begin
	for _, request := range r.Since(begin) {
		counts[request.Listener]++
		verify.Require(t, !request.Time.Before(before), "the requests are not in order")
		before = request.Time
	}
	// Of 4096 places, by chance: 16 standard deviations of 32.
	verify.That(t, counts["a"]+counts["b"] == maxRequests && counts["a"] > 1536 && counts["b"] > 1536 && counts["long"] == 0, "requests: %v", counts)
	verify.Equal(t, len(r.Since(before)), 1, "requests since the last one")
}
