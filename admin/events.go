package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/observe/events"
)

const (
	// EventsHeartbeat is the longest time without a byte in a stream of events.
	EventsHeartbeat = 15 * time.Second

	// eventsPatience is how long a client may take to receive a part of a stream. Then it
	// is cut, and may resume.
	eventsPatience = 10 * time.Second

	// eventsPart is the number of events in such a part.
	eventsPart = 256

	// maxEventStreams bounds the open streams.
	maxEventStreams = 100
)

// eventHandler answers with events.
type eventHandler struct {
	feed    *events.Feed
	tokens  func() Tokens
	streams atomic.Int32 // that are open
}

// eventsQuery is a request for events.
type eventsQuery struct {
	filter events.Filter
	after  events.ID // zero: all that are kept
	limit  int       // of the kept ones, the latest; 0: all
	list   bool      // as JSON; else as a stream
}

// events answers /api/events with a stream of server-sent events, or with the list of those that
// are kept.
func (h *eventHandler) events(w http.ResponseWriter, r *http.Request) {
	q, err := newEventsQuery(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	kept, reader := h.feed.Read(q.filter, q.after)
	if q.limit > 0 {
		kept = kept[max(0, len(kept)-q.limit):]
	}
	if q.list || h.tokens().routed {
		writeJSON(w, http.StatusOK, list(kept))
		return
	}
	if h.streams.Add(1) > maxEventStreams {
		h.streams.Add(-1)
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams of events are open: no more are allowed", maxEventStreams))
		return
	}
	defer h.streams.Add(-1)
	allowed := func() bool { return h.tokens().denial(r, scopeLook) == nil }
	streamEvents(w, r, kept, reader, allowed)
}

func newEventsQuery(r *http.Request) (q eventsQuery, err error) {
	values := r.URL.Query()
	q.filter = events.Filter{Services: values["service"], Kinds: values["kind"]}
	if slices.ContainsFunc(q.filter.Kinds, func(kind string) bool { return kind == "" }) || q.filter.UnknownKind() != "" {
		return q, fmt.Errorf("kind %q: want one of %s, or the part before the dot", q.filter.UnknownKind(), strings.Join(each(events.Kinds(), func(k events.Kind) string { return string(k) }), ", "))
	}
	if id := cmp.Or(r.Header.Get("Last-Event-ID"), values.Get("after")); id != "" {
		if q.after, err = events.ParseID(id); err != nil {
			return q, err
		}
	}
	if limit := values.Get("limit"); limit != "" {
		if q.limit, err = strconv.Atoi(limit); err != nil || q.limit < 1 {
			return q, fmt.Errorf("limit %q: want a number of events, at least 1", limit)
		}
	}
	accepted := strings.Join(r.Header.Values("Accept"), ",")
	switch format := values.Get("format"); format {
	case "json":
		q.list = true
	case "":
		q.list = strings.Contains(accepted, "application/json") && !strings.Contains(accepted, "text/event-stream")
	case "sse":
	default:
		return q, fmt.Errorf("format %q: want json or sse", format)
	}
	return q, nil
}

// streamEvents sends the kept events and the events of reader, until the client leaves, is too
// slow, is not allowed to look any more, or the feed is closed.
// https://html.spec.whatwg.org/multipage/server-sent-events.html
func streamEvents(w http.ResponseWriter, r *http.Request, kept []events.Event, reader *events.Reader, allowed func() bool) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // for an nginx in front
	if r.Method == http.MethodHead {
		return
	}
	connection := http.NewResponseController(w)
	send := func(part []byte) error {
		_ = connection.SetWriteDeadline(time.Now().Add(eventsPatience)) // not for a test's recorder
		if _, err := w.Write(part); err != nil {
			return err
		}
		return connection.Flush()
	}
	if send([]byte("retry: 1000\n\n")) != nil {
		return
	}
	for part := range slices.Chunk(kept, eventsPart) {
		if send(encodeEvents(part)) != nil {
			return
		}
	}
	for {
		part, err := nextEvents(r.Context(), reader)
		if err != nil || !allowed() || send(part) != nil {
			return
		}
	}
}

// nextEvents waits for the next part of a stream: events, or a comment that says that the stream
// is open.
func nextEvents(ctx context.Context, reader *events.Reader) ([]byte, error) {
	waiting, cancel := context.WithTimeout(ctx, EventsHeartbeat)
	defer cancel()
	list, err := reader.Next(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return []byte(":\n\n"), nil
	}
	return encodeEvents(list), err
}

// encodeEvents returns events as a part of a stream.
func encodeEvents(list []events.Event) []byte {
	var part bytes.Buffer
	encoder := json.NewEncoder(&part)
	encoder.SetEscapeHTML(false)
	for _, e := range list {
		if e.ID != (events.ID{}) {
			fmt.Fprintf(&part, "id: %s\n", e.ID)
		}
		part.WriteString("data: ")
		_ = encoder.Encode(e) // one line; it cannot fail
		part.WriteString("\n")
	}
	return part.Bytes()
}
