package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"sluice/release"
	"sluice/test/sluicetest"
)

// instance is an instance of the application, with its version as a tag.
type instance struct {
	id, version string
	broken      atomic.Bool // answers have status 500
}

func (i *instance) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if i.broken.Load() {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "Hello from %s\n", i.id)
}

// byVersion2 returns how many requests version 2 has answered.
func byVersion2(c sluicetest.Count) (n int) {
	for app, answers := range c.ByApp {
		if strings.HasPrefix(app, "v2-") {
			n += answers
		}
	}
	return n
}

// split returns the split of the service.
func (r *rollout) split(ctx context.Context) (s release.State, err error) {
	var all []release.State
	if err := r.Get(ctx, "/api/shares", &all); err != nil {
		return s, err
	}
	if len(all) != 1 {
		return s, fmt.Errorf("%d splits", len(all))
	}
	return all[0], nil
}
