package recent

import (
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

// The sample is bounded, and who adds as often as another one keeps as much room. The many routes
// of tags leave the file its half.
func TestRequests(t *testing.T) {
	var r Requests
	begin := time.Unix(1000, 0)
	for i := range 20 * maxRequests {
		r.Add(Request{Time: begin.Add(time.Duration(i)), Listener: []string{"a", "b"}[i%2], Head: []byte("x")}, true)
	}
	r.Add(Request{Time: begin, Listener: "long", Head: []byte(strings.Repeat("x", MaxHead+1))}, false)
	for range 10 {
		r.Add(Request{Time: begin, Listener: "file", Head: []byte("x")}, false)
	}
	counts := make(map[string]int)
	before := begin
	for _, request := range r.Since(begin) {
		counts[request.Listener]++
		verify.Require(t, !request.Time.Before(before), "the requests are not in order")
		before = request.Time
	}
	// Of 2048 places, by chance: 16 standard deviations of 23.
	verify.That(t, counts["a"]+counts["b"] == maxRequests && counts["a"] > 656 && counts["b"] > 656 && counts["long"] == 0 && counts["file"] == 10, "requests: %v", counts)
	verify.Equal(t, len(r.Since(before)), 1, "requests since the last one")
}
