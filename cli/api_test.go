package cli

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"sluice/admin"
	"sluice/admin/series"
	"sluice/balancer"
	"sluice/config"
	"sluice/config/live"
	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/operator"
	"sluice/test/verify"
)

// noDocuments are documents without a history.
type noDocuments struct{ admin.Documents }

func (noDocuments) History() *config.History { return new(config.History) }
func (noDocuments) Statuses() []live.Status  { return nil }

// adminOf is the handler of an admin API with these services.
func adminOf(pools func() []*balancer.Pool, tokens admin.Tokens, orders *operator.Peers) http.Handler {
	return admin.New(admin.Options{
		Services: admin.Services{
			Former:  func() ([]admin.Peer, error) { return nil, nil },
			Pools:   pools,
			Watches: func() []discovery.WatchStatus { return nil },
			Health:  func() map[string]healthcheck.Stats { return nil },
			Series:  series.NewRecorder(pools),
		},
		Routes:    admin.Routes{Effective: func() *config.Config { return nil }},
		Documents: noDocuments{},
		Tokens:    func() admin.Tokens { return tokens },
		Orders:    orders,
		Fleet:     admin.Fleet{Registration: func() registration.Status { return registration.Status{State: registration.StateOff} }},
	})
}

// emptyAPI is the handler of an admin API without services. It wants the token s3cret for orders,
// and scraper for looking.
func emptyAPI() http.Handler {
	none := func() []*balancer.Pool { return nil }
	return adminOf(none, admin.Tokens{Operate: "s3cret", Look: "scraper"}, operator.New(operator.Options{}))
}

func TestCommandsThroughAUnixSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "admin.sock")
	l := verify.Result(net.Listen("unix", path)).Must(t)
	server := httptest.NewUnstartedServer(emptyAPI())
	server.Listener.Close()
	server.Listener = l
	server.Start()
	look := writeFile(t, "look", "scraper\n")
	prints(t, exitOK, "no peers\n", "peers", "--admin", "unix:"+path, "--token-file", look)
	t.Setenv("SLUICE_ADMIN", "unix:"+path)
	t.Setenv("SLUICE_TOKEN_FILE", look)
	prints(t, exitOK, "no peers\n", "peers")
	prints(t, exitFailed, "no sluice answers at unix:"+path+".none", "peers", "--admin", "unix:"+path+".none") // a flag has precedence
	server.Close()
	os.WriteFile(path, nil, 0o600)
	prints(t, exitFailed, "sluice: no sluice answers at unix:"+path+": is it running? (--admin sets the address)\n", "peers", "--admin", "unix:"+path)
}

// A command that asks another port than the admin API's says so.
func TestCommandsToAnotherServer(t *testing.T) {
	t.Parallel()
	clients := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Sluice-Reason", "no_route")
		http.Error(w, "no route matches the request", http.StatusNotFound)
	})
	const want = "404 Not Found: not an answer of the admin API (--admin sets its address)\n"
	prints(t, exitFailed, "sluice: admin API at "+clients+": "+want, "peers", "--admin", clients)
	prints(t, exitFailed, "admin API at https://"+clients+": it does not use TLS: --admin "+clients+"\n", "peers", "--admin", "https://"+clients)
	prints(t, exitFailed, ": it does not use TLS: --admin "+clients+"\n", "peers", "--admin", "https://"+clients+"/")
}

func TestCommandsByHTTPS(t *testing.T) {
	server := httptest.NewUnstartedServer(emptyAPI())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	address := server.Listener.Addr().String()
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	look, operate := writeFile(t, "look", "scraper\n"), writeFile(t, "operate", "s3cret\n")
	for _, c := range []struct {
		args   []string
		status int
		want   string // part of what is printed
	}{
		{[]string{"peers", "--admin", "https://" + address, "--ca-file", ca, "--token-file", look}, exitOK, "no peers\n"},
		{[]string{"peers", "--admin", "https://" + address + "/", "--ca-file", ca, "--token-file", operate}, exitOK, "no peers\n"},
		{[]string{"peers", "--admin", "https://" + address, "--ca-file", ca}, exitFailed, "a valid token is required"},
		{[]string{"enable", "star/a", "--admin", "https://" + address, "--ca-file", ca, "--token-file", look}, exitFailed, "this token is only for looking"},
		{[]string{"enable", "star/a", "--admin", "https://" + address, "--ca-file", ca, "--token-file", operate}, exitFailed, `no service "star"`},
		{[]string{"peers", "--admin", "https://" + address}, exitFailed, "(--ca-file has the certificates to trust)\n"},
		{[]string{"peers", "--admin", address}, exitFailed, "admin API at " + address + ": it uses TLS: --admin https://" + address + "\n"},
		{[]string{"peers", "--admin", "http://" + address}, exitFailed, "it uses TLS: --admin https://" + address + "\n"},
	} {
		prints(t, c.status, c.want, c.args...)
	}
}

// An error of the API may name a node of the registry, with what controls a terminal.
func TestErrorsOfTheAPIDoNotControlTheTerminal(t *testing.T) {
	address := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error":"choose one (n\u001b[2J 10.0.0.1:80)\nor none"}`)
	})
	fails(t, "sluice: admin API at "+address+": choose one (n?[2J 10.0.0.1:80)\nsluice: or none\n", "peers", "--admin", address)
}
