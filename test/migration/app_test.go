package migration

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// app is a service of one instance, which answers with what it has received.
type app struct {
	name string
	tags []string
}

// received is the answer of an app.
type received struct {
	App, Target, Host string
	Fields            http.Header
}

// start runs the app until the test ends, and registers it with the status of its check.
func (a app) start(t *testing.T, consul *consultest.Agent, status string) {
	t.Helper()
	register(t, consul, a.name, a.name, serve(t, a.name), a.tags, status)
}

// serve runs the server of an app until the test ends, and returns its address.
func serve(t *testing.T, name string) netip.AddrPort {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, name) }))
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

func answer(w http.ResponseWriter, r *http.Request, name string) {
	_ = json.NewEncoder(w).Encode(received{App: name, Target: r.RequestURI, Host: r.Host, Fields: r.Header})
}

// unchecked is the status of an instance without a check.
const unchecked = "unchecked"

// register registers an instance with the status of its check.
func register(t *testing.T, consul *consultest.Agent, id, service string, address netip.AddrPort, tags []string, status string) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		ID: id, Name: service, Address: address.Addr().Unmap().String(), Port: int(address.Port()), Tags: tags,
	}
	if status != unchecked {
		r.Check = &api.AgentServiceCheck{TTL: "1h", Status: status}
	}
	verify.NoError(t, consul.Client().Agent().ServiceRegister(r))
}

// shownRequest and shownResponse are the fields that ask shows of what an app got, and of its
// answer.
var (
	shownRequest  = []string{"X-Forwarded-Prefix", "X-Forwarded-User", "X-Script-Name", "X-Remove"}
	shownResponse = []string{"X-Frame-Options", "X-Content-Type-Options", "X-Added", "X-Robots-Tag"}
)

// ask sends a request and returns the answer in a line: "200 APP TARGET", with the host if the app
// got another one, and some fields; "301 LOCATION"; or the status.
func ask(address string, r request) (string, error) {
	method, url, _ := strings.Cut(r.line, " ")
	host, _, _ := strings.Cut(url, "/")
	target := url[len(host):]
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if r.secure {
		conn = tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	head := append([]string{method + " " + target + " HTTP/1.1", "Host: " + host, "Connection: close"}, r.fields...)
	if r.body != "" {
		head = append(head, fmt.Sprint("Content-Length: ", len(r.body)))
	}
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"+r.body); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	answer := fmt.Sprint(response.StatusCode)
	if location := response.Header.Get("Location"); location != "" {
		answer += " " + location
	}
	var got received
	if response.StatusCode == http.StatusOK && json.Unmarshal(body, &got) == nil {
		answer += " " + got.App + " " + got.Target
		if got.Host != host {
			answer += " host=" + hideLoopback(got.Host)
		}
		answer += show(got.Fields, shownRequest) + show(response.Header, shownResponse)
	}
	return answer, nil
}

// hideLoopback replaces the address of an app, which is another one in each run.
func hideLoopback(host string) string {
	if strings.HasPrefix(host, "127.0.0.1:") {
		return "INSTANCE"
	}
	return host
}

// show returns " NAME=VALUE" for each of the names that the header has.
func show(header http.Header, names []string) string {
	var b strings.Builder
	for _, name := range names {
		for _, value := range header.Values(name) {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	return b.String()
}
