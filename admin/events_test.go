package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/observe/events"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// feedOf returns a feed with an event for each text, of the service "star".
func feedOf(texts ...string) *events.Feed {
	f := events.New()
	for _, text := range texts {
		f.Add(events.Event{Kind: events.KindJoined, Service: "star", Text: text})
	}
	return f
}

func textsOf(list []events.Event) string {
	var texts []string
	for _, e := range list {
		texts = append(texts, e.Text)
	}
	return strings.Join(texts, "; ")
}

func TestEventsAsAList(t *testing.T) {
	feed := feedOf("one", "two")
	feed.Add(events.Event{Kind: events.KindApplied, Revision: 3, Text: "<three>"})
	h := handlerOf(Options{Events: feed})
	all := getJSON[[]events.Event](t, h, "/api/events?format=json")
	verify.Require(t, textsOf(all) == "one; two; <three>" && all[0].Service == "star" && all[2].Revision == 3, "got %+v", all)
	for query, want := range map[string]string{
		"service=star":                "one; two",
		"service=origin":              "",
		"kind=peer&kind=config":       "one; two; <three>",
		"kind=config.applied":         "<three>",
		"limit=2":                     "two; <three>",
		"limit=9":                     "one; two; <three>",
		"after=" + all[0].ID.String(): "two; <three>",
		"limit=1&service=star&after=" + all[0].ID.String(): "two",
	} {
		verify.Equal(t, textsOf(getJSON[[]events.Event](t, h, "/api/events?format=json&"+query)), want, "%s", query)
	}
	status, body := get(t, h, "/api/events", "Accept", "application/json", "Last-Event-ID", all[1].ID.String())
	got := textsOf(decode[[]events.Event](t, body))
	verify.That(t, status == http.StatusOK && got == "<three>", "status %d, %s", status, body)
	_, body = get(t, handlerOf(Options{}), "/api/events?format=json")
	verify.That(t, strings.TrimSpace(body) == "[]", "without events: %s", body)
}

func TestEventsRefuseBadQueries(t *testing.T) {
	h := handlerOf(Options{})
	for query, want := range map[string]string{
		"kind=peers":    `kind "peers": want one of peer.joined, `,
		"kind=":         `kind "": want one of`,
		"limit=0":       `limit "0": want a number of events`,
		"limit=many":    `limit "many": want a number of events`,
		"after=yes":     `event id "yes": want START-NUMBER`,
		"format=ndjson": `format "ndjson": want json or sse`,
	} {
		status, body := get(t, h, "/api/events?"+query)
		got := errorOf(t, body)
		verify.That(t, status == http.StatusBadRequest && strings.HasPrefix(got, want), "%s: status %d, %s", query, status, got)
	}
	status, _ := ask(t, h, http.MethodPost, "/api/events")
	verify.That(t, status == http.StatusMethodNotAllowed, "POST: status %d", status)
	status, _ = get(t, handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: "secret"} }}), "/api/events")
	verify.That(t, status == http.StatusUnauthorized, "without the token: status %d", status)
}

// stream is an open stream of events.
type stream struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Scanner
}

// openStream opens a stream. It must be closed.
func openStream(t *testing.T, server *httptest.Server, query string, header ...string) *stream {
	t.Helper()
	request := verify.Result(http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/events"+query, nil)).Must(t)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response := verify.Result(server.Client().Do(request)).Must(t)
	got := response.Header.Get("Content-Type")
	verify.Require(t, response.StatusCode == http.StatusOK && got == "text/event-stream", "status %d, %s", response.StatusCode, got)
	return &stream{t, response, bufio.NewScanner(response.Body)}
}

// next returns the next lines up to an empty one.
func (s *stream) next() (message string) {
	s.t.Helper()
	for s.lines.Scan() && s.lines.Text() != "" {
		message += s.lines.Text() + "\n"
	}
	return message
}

// event returns the next event.
func (s *stream) event() events.Event {
	s.t.Helper()
	message := s.next()
	_, data, found := strings.Cut(message, "data: ")
	verify.Require(s.t, found, "no event: %q", message)
	e := decode[events.Event](s.t, data)
	id, _, _ := strings.Cut(message, "\n")
	verify.That(s.t, e.ID == (events.ID{}) || id == "id: "+e.ID.String(), "%s of the event %+v", id, e)
	return e
}

func newEventServer(t *testing.T, o Options) *httptest.Server {
	server := httptest.NewServer(handlerOf(o))
	t.Cleanup(func() {
		o.Events.Close()
		server.Close()
	})
	return server
}

func TestEventsAsAStream(t *testing.T) {
	t.Parallel()
	feed := feedOf("one", "two")
	server := newEventServer(t, Options{Events: feed})
	s := openStream(t, server, "")
	defer s.response.Body.Close()
	verify.Equal(t, s.next(), "retry: 1000\n", "first message")
	one, two := s.event(), s.event()
	verify.That(t, one.Text == "one" && two.Text == "two", "got %+v, %+v", one, two)
	feed.Add(events.Event{Kind: events.KindLeft, Service: "star", Text: "a\nb <c>"})
	e := s.event()
	verify.That(t, e.Text == "a\nb <c>" && e.Kind == events.KindLeft, "got %+v", e)

	resumed := openStream(t, server, "?kind=peer.left", "Last-Event-ID", one.ID.String())
	defer resumed.response.Body.Close()
	resumed.next()
	e = resumed.event()
	verify.That(t, e.Kind == events.KindLeft, "after %s: %+v", one.ID, e)
	feed.Close()
	verify.Equal(t, resumed.next(), "", "after the end of the feed")
	verify.Succeeds(t, resumed.lines.Err())
}

func TestTooManyStreamsOfEventsAreRefused(t *testing.T) {
	t.Parallel()
	server := newEventServer(t, Options{Events: events.New()})
	for range maxEventStreams {
		defer openStream(t, server, "").response.Body.Close()
	}
	response := verify.Result(server.Client().Get(server.URL + "/api/events")).Must(t)
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	verify.That(t, response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "" && strings.Contains(string(body), "100 streams"), "status %d, %s", response.StatusCode, body)
}

// streamOf asks for a stream in virtual time. It returns the client's connection, and what waits
// for the end of the handler.
func streamOf(t *testing.T, feed *events.Feed) (client net.Conn, ended func()) {
	t.Helper()
	handled := make(chan struct{})
	h := handlerOf(Options{Events: feed})
	server := discoverytest.ServePipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(handled)
		h.ServeHTTP(w, r)
	}))
	client = verify.Result(server.DialContext(t.Context(), "", "")).Must(t)
	fmt.Fprintf(client, "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	return client, func() {
		<-handled
		client.Close()
		server.Close()
	}
}

func TestStreamsOfEventsHaveHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ended := streamOf(t, events.New())
		begin := time.Now()
		lines := bufio.NewScanner(client)
		beats := 0
		for beats < 3 && lines.Scan() {
			if lines.Text() == ":" {
				beats++
			}
		}
		verify.Equal(t, time.Since(begin), 3*EventsHeartbeat, "3 heartbeats took")
		client.Close()
		ended()
	})
}

// Who has replaced a token ends the streams that were opened with it.
func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	feed := events.New()
	var tokens atomic.Pointer[Tokens]
	tokens.Store(&Tokens{Operate: "s3cret", Look: "leaked"})
	server := newEventServer(t, Options{Events: feed, Tokens: func() Tokens { return *tokens.Load() }})
	leaked, kept := openStream(t, server, "", "Authorization", "Bearer leaked"), openStream(t, server, "", "Authorization", "Bearer s3cret")
	defer leaked.response.Body.Close()
	defer kept.response.Body.Close()
	for _, s := range []*stream{leaked, kept} {
		verify.Equal(t, s.next(), "retry: 1000\n", "first message")
	}
	feed.Add(events.Event{Kind: events.KindJoined, Text: "before"})
	verify.That(t, leaked.event().Text == "before" && kept.event().Text == "before", "no event before")
	tokens.Store(&Tokens{Operate: "s3cret", Look: "new"})
	feed.Add(events.Event{Kind: events.KindJoined, Text: "after"})
	verify.Equal(t, kept.event().Text, "after", "event for the token that stays")
	verify.Equal(t, leaked.next(), "", "message for the token that was replaced")
}

// A client that does not read is cut, and does not delay who adds events.
func TestSlowClientIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := events.New()
		_, ended := streamOf(t, feed)
		begin := time.Now()
		for i := range 2 * events.Capacity {
			feed.Add(events.Event{Kind: events.KindJoined, Text: fmt.Sprint(i)})
		}
		verify.Equal(t, time.Since(begin), 0, "to add events took")
		ended()
		verify.Equal(t, time.Since(begin), eventsPatience, "the client was cut after")
	})
}
