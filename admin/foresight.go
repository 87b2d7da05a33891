package admin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/config/live"
	"sluice/proxy"
	"sluice/proxy/recent"
)

// Foreseen is how requests would be served by a configuration that is not in use.
type Foreseen struct {
	Explain func(proxy.Question) proxy.Explanation
	// Listeners are the names of the listeners that stay, by their names now.
	Listeners map[string]string
	// New are the services whose peers are not known: they are new, or get others than now.
	New map[string]bool
	// Unknown is what else is not known, for people.
	Unknown []string
}

// Foresight is the body of the answer to /api/route/against: what becomes of requests of the last
// hour with another configuration.
type Foresight struct {
	Requests int       `json:"requests"`       // looked at: a sample of each route
	Since    time.Time `json:"since,omitzero"` // when the first of them began; zero: none has
	// Changes are those that are served otherwise, the most frequent first.
	Changes []RouteChange `json:"changes"`
	Unknown []string      `json:"unknown,omitempty"` // what is not known, for people
}

// RouteChange is what becomes of requests that are served alike now, and otherwise then.
type RouteChange struct {
	Requests int    `json:"requests"`
	Now      string `json:"now"` // for people
	Then     string `json:"then"`
	Fails    bool   `json:"fails"` // sluice serves them now, and refuses some of them then
	// Examples are some of the requests, without a query.
	Examples []string `json:"examples"`
}

const (
	maxConfiguration = 16 << 20 // bytes of a text to try
	maxChanges       = 200
	maxExamples      = 3
)

// foresight answers /api/route/against, one question at a time: each takes a processor for a while.
type foresight struct {
	Options
	mu sync.Mutex
}

// foresee answers POST /api/route/against?document=, with the text in the body.
func (h *foresight) foresee(r *http.Request) (any, error) {
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxConfiguration))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "read the configuration to try: %w", err)
	}
	if !h.mu.TryLock() {
		return nil, refuse(http.StatusTooManyRequests, "another configuration is being tried: ask again in a moment")
	}
	defer h.mu.Unlock()
	then, err := h.Foresee(r.Context(), r.URL.Query().Get("document"), string(text))
	switch {
	case errors.Is(err, live.ErrNoSource):
		return nil, refuse(http.StatusNotFound, "document %q: %w", r.URL.Query().Get("document"), err)
	case errors.Is(err, live.ErrEnded):
		return nil, refuse(http.StatusServiceUnavailable, "%w", err)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	return h.compare(h.Recent(time.Now().Add(-recent.Age)), then), nil
}

// compare returns what becomes of requests.
func (h *foresight) compare(requests []recent.Request, then Foreseen) Foresight {
	f := Foresight{Changes: []RouteChange{}, Unknown: then.Unknown}
	listeners := make(map[string]proxy.ListenerOptions)
	for _, l := range h.Listeners() {
		listeners[l.Name] = l.ListenerOptions
	}
	changes, unknown := make(map[[2]string]*RouteChange), make(map[string]bool)
	for _, r := range requests {
		listener, there := listeners[r.Listener]
		if !there {
			continue // a reload has removed it
		}
		if f.Requests++; f.Requests == 1 {
			f.Since = r.Time.UTC()
		}
		q := proxy.Question{Listener: listener, Head: r.Head, Client: r.Client, Certificate: r.Certificate}
		before := describeOutcome(h.Explain(q), nil)
		after := outcome{text: "no listener: its address is gone", fails: true}
		if name, stays := then.Listeners[r.Listener]; stays {
			q.Listener.Name = name
			after = describeOutcome(then.Explain(q), then.New)
		}
		for _, name := range after.unknown {
			unknown[name] = true
		}
		if before.text == after.text && slices.Equal(before.targets, after.targets) {
			continue
		}
		if before.text == after.text {
			after.text += ", as another path"
		}
		key := [2]string{before.text, after.text}
		c := changes[key]
		if c == nil {
			c = &RouteChange{Now: before.text, Then: after.text, Fails: after.fails && !before.fails}
			changes[key] = c
		}
		if c.Requests++; len(c.Examples) < maxExamples {
			if e := exampleOf(listener, r.Head, before, after); !slices.Contains(c.Examples, e) {
				c.Examples = append(c.Examples, e)
			}
		}
	}
	for _, c := range changes {
		f.Changes = append(f.Changes, *c)
	}
	slices.SortFunc(f.Changes, func(a, b RouteChange) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Now, b.Now), cmp.Compare(a.Then, b.Then))
	})
	f.Changes = f.Changes[:min(maxChanges, len(f.Changes))]
	for name := range unknown {
		f.Unknown = append(f.Unknown, "the peers of the service "+name)
	}
	slices.Sort(f.Unknown)
	return f
}

// outcome is what becomes of a request, so that two can be compared.
type outcome struct {
	text    string
	targets []string // what peers get as path and query
	fails   bool     // sluice refuses the request, perhaps
	unknown []string // services whose peers are not known
}

func describeOutcome(x proxy.Explanation, isNew map[string]bool) (o outcome) {
	var parts []string
	for _, e := range x.Ends {
		text := "service " + e.Service
		if e.Group != "" {
			text += ", group " + e.Group
		}
		switch a := e.Answer; {
		case isNew[e.Service] && (a == nil || e.Matched != nil && a.Status == http.StatusServiceUnavailable):
			o.unknown = append(o.unknown, e.Service)
		case a != nil:
			text = fmt.Sprintf("%d %s", a.Status, a.Reason)
			o.fails = o.fails || a.Status >= 400 && a.Reason != "direct_response"
		}
		o.targets = append(o.targets, e.Target)
		for _, d := range e.Depends {
			text += fmt.Sprintf(", or %d %s", d.Status, d.Reason)
		}
		if len(x.Ends) > 1 {
			text = fmt.Sprintf("%.4g %%: %s", 100*rounded(e.Share), text)
		}
		parts = append(parts, text)
	}
	o.text = strings.Join(parts, "; ")
	return o
}

// exampleOf returns a request with that head for people: without its query, and with the path that
// peers get if that differs.
func exampleOf(l proxy.ListenerOptions, head []byte, before, after outcome) string {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	method, target, _ := strings.Cut(strings.TrimSuffix(string(line), " HTTP/1.1"), " ")
	path, _, _ := strings.Cut(target, "?")
	host, _, _ := bytes.Cut(bytes.TrimPrefix(rest, []byte("Host: ")), []byte("\r\n"))
	scheme := "http"
	if l.TLS != nil {
		scheme = "https"
	}
	example := fmt.Sprintf("%s %s://%s%s", method, scheme, host, path)
	if len(before.targets) == 1 && len(after.targets) == 1 && before.targets[0] != after.targets[0] && before.targets[0] != "" && after.targets[0] != "" {
		now, _, _ := strings.Cut(before.targets[0], "?")
		then, _, _ := strings.Cut(after.targets[0], "?")
		example += fmt.Sprintf(" (%s, then %s)", now, then)
	}
	return example
}
