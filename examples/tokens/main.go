// Command tokens shows an app whose users have tokens. It needs only Go, and ends by itself after
// about ten seconds:
//
//	go run ./examples/tokens
//
// sluice has the configuration of this folder. What clients get is printed: without a token, with
// one that does not allow it, with one that does, of which the app gets the claims, and with the
// first one after the issuer has made a new key. The issuer and the app are parts of this program;
// sluice is a process.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("tokens", show) }

//go:embed sluice.yaml
var configuration string

// tour is what runs.
type tour struct {
	*stage.Stage
	issuer *issuer
}

// show shows what clients get.
func show(ctx context.Context, on *stage.Stage) error {
	t := &tour{Stage: on}
	if err := t.start(ctx); err != nil {
		return err
	}
	admin, err := t.issuer.token("ada", "viewer", "admin")
	if err != nil {
		return err
	}
	viewer, err := t.issuer.token("eve", "viewer")
	if err != nil {
		return err
	}
	if err := t.Await(ctx, sluicetest.Patience, "the keys of the issuer", func(ctx context.Context) (bool, error) {
		answer, err := t.ask(ctx, admin)
		return err == nil && answer.StatusCode == http.StatusOK, err
	}); err != nil {
		return err
	}
	if err := t.look(ctx, "without a token", "", "401 token_missing", ""); err != nil {
		return err
	}
	if err := t.look(ctx, "of eve, a viewer", viewer, "403 token_denied", ""); err != nil {
		return err
	}
	const ada = `user "ada", roles "viewer,admin", token ""`
	if err := t.look(ctx, "of ada, an admin", admin, "200", ada); err != nil {
		return err
	}
	if err := t.issuer.rotate(); err != nil {
		return err
	}
	next, err := t.issuer.token("bob", "editor")
	if err != nil {
		return err
	}
	if err := t.look(ctx, "of bob, by a new key", next, "200", `user "bob", roles "editor", token ""`); err != nil {
		return err
	}
	return t.look(ctx, "of ada again", admin, "200", ada)
}

func (t *tour) start(ctx context.Context) (err error) {
	t.Line("Building sluice, and starting an issuer, an app and sluice.")
	if t.issuer, err = startIssuer(); err != nil {
		return err
	}
	t.End(func() error { t.issuer.Close(); return nil })
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "user %q, roles %q, token %q\n", r.Header.Get("X-User"), r.Header.Get("X-Roles"), r.Header.Get("Authorization"))
	}))
	t.End(func() error { app.Close(); return nil })
	here := strings.NewReplacer("127.0.0.1:8080", sluicetest.Any, "http://127.0.0.1:9090", t.issuer.URL, "127.0.0.1:9001", app.Listener.Addr().String())
	return t.Serve(ctx, here.Replace(configuration))
}

// ask sends a request of a client that says it is eve, with a token, if there is one.
func (t *tour) ask(ctx context.Context, token string) (sluicetest.Answer, error) {
	header := []string{"X-User", "eve"}
	if token != "" {
		header = append(header, "Authorization", "Bearer "+token)
	}
	return sluicetest.Ask(ctx, http.DefaultClient, http.MethodGet, t.URL(), header...)
}

// look prints what a client with a token gets, which must have the status and reason want, and, if
// the app answers, this text.
func (t *tour) look(ctx context.Context, what, token, want, text string) error {
	begin := time.Now()
	answer, err := t.ask(ctx, token)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if answer.String() != want || text != "" && answer.Text != text {
		return fmt.Errorf("%s: got %v, want %s %s: %s", what, answer, want, text, answer.Text)
	}
	if text == "" {
		text = answer.Header.Get("WWW-Authenticate")
	}
	t.Line("%-22s %v after %s: %s", what, answer, time.Since(begin).Round(time.Millisecond), text)
	return nil
}
