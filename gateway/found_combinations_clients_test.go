package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/test/testcert"
)

// foundServices are the services with tags, each of which has three instances at most.
var foundServices = []string{"moon", "star", "sun"}

// foundServers are the peers of TestFoundCombinations.
type foundServers struct {
	addresses map[string][]string // by service
	names     map[string]string   // by address
	authURL   string
	site      testcert.Files // of the listener with TLS
}

func startFoundServers(t *testing.T) *foundServers {
	t.Helper()
	s := &foundServers{addresses: make(map[string][]string), names: make(map[string]string)}
	serve := func(handler http.HandlerFunc) string {
		server := httptest.NewUnstartedServer(handler)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Listener = newSecretlyTLS(t, server.Listener)
		server.Start()
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	for _, service := range foundServices {
		for n := range 3 {
			name := fmt.Sprint(service, "-", n+1)
			address := serve(func(w http.ResponseWriter, r *http.Request) { foundAnswer(w, r, name) })
			s.addresses[service], s.names[address] = append(s.addresses[service], address), name
		}
	}
	s.authURL = "http://" + serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Pass") != "yes" {
			w.WriteHeader(http.StatusForbidden)
		}
		w.Header().Set("X-User", "asked")
	}) + "/"
	s.site = testcert.Write(t, t.TempDir(), "*.example.com")
	return s
}

func foundAnswer(w http.ResponseWriter, r *http.Request, name string) {
	h := w.Header()
	h.Set("Got-Peer", name)
	h.Set("Got-Path", r.URL.Path)
	h.Set("Got-Protocol", r.Proto)
	h.Set("Got-User", r.Header.Get("X-User"))
	asked := r.Header.Get("X-Ask")                                                                     // by a tag of sluice or Traefik
	if number, ok := strings.CutSuffix(r.Host, ".example.com"); ok && strings.HasPrefix(number, "n") { // of fabio
		asked = number[1:]
	}
	if r.Host == movingHost {
		asked = "the file"
	}
	h.Set("Got-Ask", asked)
	if slow, err := strconv.Atoi(r.URL.Query().Get("slow")); err == nil {
		<-time.After(time.Duration(slow) * time.Millisecond)
	}
	_, _ = io.Copy(w, r.Body)
}

var foundClient = combinedClient{listener: "web"}

// newFoundGeneration returns a gateway of TestFoundCombinations.
func newFoundGeneration(r *running) *generation {
	g := &generation{running: r, clients: make(map[combinedClient]*generationClients)}
	g.terms.publish(terms{})
	g.connect(foundClient)
	return g
}

func (c *foundRun) ask(random *rand.Rand) foundRequest {
	service := foundServices[random.IntN(len(foundServices))]
	q := foundRequest{method: http.MethodGet, canary: random.IntN(3) == 0, pass: random.IntN(2) == 0}
	if random.IntN(4) == 0 {
		q.method = http.MethodPost
	}
	q.host, q.path = service+".example.com", pickOf(random, "/x", "/n/x", "/n/x", "/n/secret/x", "/n/secret/x", "/f/x")
	switch random.IntN(8) {
	case 0, 1:
		q.host, q.path = "t."+q.host, pickOf(random, "/x", "/deep/x", "/deep/x")
	case 2:
		q.host, q.path = sharedKey.host, "/x"
	case 3:
		q.host, q.path = contestedKey.host, "/x"
	case 4:
		q.host, q.path = movingHost, "/x"
	}
	return q
}

// exchange sends a request, and says what is wrong with the answer.
func (c *foundRun) exchange(random *rand.Rand) error {
	q, since := c.ask(random), c.since()
	g, arrived := c.begin()
	defer arrived()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	client, url := g.clients[foundClient].http[pickOf(random, protocolHTTP1, protocolHTTP2)], "http://"+q.host+q.path
	if random.IntN(3) == 0 {
		client, url = &http.Client{Transport: c.http3, CheckRedirect: client.CheckRedirect}, "https://"+q.host+q.path
	}
	if random.IntN(4) == 0 {
		url += fmt.Sprint("?slow=", random.IntN(50))
	}
	body := ""
	if q.method == http.MethodPost {
		body = "what comes back"
	}
	request, err := http.NewRequestWithContext(ctx, q.method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	if q.canary {
		request.Header.Set("X-Canary", "1")
	}
	if q.pass {
		request.Header.Set("X-Pass", "yes")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	arrived()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s: the body: %w", url, err)
	}
	if err := c.judge(q, since, c.told(response), response.Header.Get("X-Sluice-Reason")); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return nil
	}
	wanted, user := q.path, ""
	if number, err := strconv.Atoi(response.Header.Get("Got-Ask")); err == nil {
		a := c.known(number)
		if wanted = a.pathAt(q.path); a.kind == passAsk {
			user = "asked"
		}
	}
	if path := response.Header.Get("Got-Path"); path != wanted || response.Header.Get("Got-User") != user || string(got) != body {
		return fmt.Errorf("%+v: the peer got the path %q instead of %q, the user %q instead of %q; the body is %q", q, path, wanted, response.Header.Get("Got-User"), user, got)
	}
	return nil
}

// judge says what is wrong with an answer.
func (c *foundRun) judge(q foundRequest, since marks, text, reason string) error {
	files, services := c.during(q, since)
	exact := len(files) == 1 && !slices.ContainsFunc(services, func(states []*foundService) bool { return len(states) > 1 })
	allowed, got := map[string]bool(nil), text
	if exact {
		allowed = answers(q, files[0], slices.Concat(services...), since.holder)
	} else {
		allowed, got = passing(q, files, services), withoutPeer(text)
	}
	if q.protocol != "" {
		allowed = asStream(allowed)
	}
	if !allowed[got] {
		return fmt.Errorf("%+v: got %s, allowed is %v, while nothing changes: %t; reason %q", q, text, allowed, exact, reason)
	}
	if exact {
		c.exact.Add(1)
	}
	return nil
}

// told returns an answer as the model does.
func (c *foundRun) told(response *http.Response) string {
	switch h := response.Header; response.StatusCode {
	case http.StatusOK:
		return peersAnswer(h.Get("Got-Ask"), h.Get("Got-Peer"), h.Get("Got-Protocol"))
	case http.StatusTemporaryRedirect:
		to, _, _ := strings.Cut(strings.TrimPrefix(h.Get("Location"), "https://b.example.com/"), "?")
		return "307 by " + to
	}
	return strconv.Itoa(response.StatusCode)
}

// talk opens a session with the database that leads, and says what is wrong with it.
func (c *foundRun) talk(random *rand.Rand) error {
	since := c.since()
	g, arrived := c.begin()
	defer arrived()
	conn, err := net.Dial("tcp", g.Address("db").String())
	if err != nil { // it was refused before Dial has returned
		return c.refusedAs(since, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * patience))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	arrived()
	if err != nil {
		return c.refusedAs(since, err)
	}
	at := strings.TrimSpace(line)
	if leaders, _ := c.leaders(since); !leaders[at] {
		return fmt.Errorf("a session goes to %s, who may lead is %v", at, leaders)
	}
	pace := time.NewTicker(3 * time.Millisecond)
	defer pace.Stop()
	for range random.IntN(60) {
		_, err := io.WriteString(conn, sessionLine)
		if err == nil {
			line, err = in.ReadString('\n')
		}
		if err != nil || line != sessionLine {
			leaders, cuts := c.leaders(since)
			if delete(leaders, at); len(leaders) == 0 || !cuts {
				return fmt.Errorf("a session with %s, which leads, has ended: %w; who else may lead is %v, they are cut: %t", at, err, leaders, cuts)
			}
			return nil
		}
		<-pace.C
	}
	return nil
}

// refusedAs returns err, unless nobody may have led, or the session may have been cut before its
// first byte.
func (c *foundRun) refusedAs(since marks, err error) error {
	if leaders, cuts := c.leaders(since); !leaders[""] && (len(leaders) == 1 || !cuts) {
		return fmt.Errorf("a session was refused: %w; who may lead is %v", err, leaders)
	}
	return nil
}
