package auth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"sluice/places"
)

// A client whose questions are not answered does not hold back the questions of others.
func TestQuestionsOfOneClientHaveTheirShare(t *testing.T) {
	asked := make(chan struct{}, 2*maxConnections)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Slow") != "" {
			asked <- struct{}{}
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	f := NewForward(server.URL, 0)
	defer f.Close()
	slow, other := places.BlockOf(netip.MustParseAddr("10.0.0.1")), places.BlockOf(netip.MustParseAddr("10.0.0.2"))
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range maxConnections {
		asking.Go(func() {
			if _, err := f.Ask(ctx, slow, http.Header{"Slow": {"1"}}); err == nil {
				t.Error("an answer to a question without one")
			}
		})
	}
	for range maxPerBlock {
		<-asked
	}
	if a, err := f.Ask(t.Context(), other, http.Header{}); err != nil || !a.Allows() {
		t.Errorf("beside them: %v, %v", a, err)
	}
	if n := len(asked); n != 0 {
		t.Errorf("the client has %d questions more than its share", n)
	}
}
