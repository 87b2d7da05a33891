package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/certificates"
	"sluice/cli/terminal"
	"sluice/discovery/locality"
)

const (
	// lookTimeout is how long a command waits for what sluice knows.
	lookTimeout = 10 * time.Second
	// orderTimeout is how long a command waits for an order: a rollback waits for a reload before
	// it, and for new peers and certificates, some 15 s.
	orderTimeout = time.Minute
)

// api is the admin API of a running sluice.
type api struct {
	address   string // HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:PATH
	caFile    string // of trusted certificates; "": the system's
	tokenFile string // "": no token
	match     string // hash of the configuration that an order is about; "": any
	body      string // what a question is about; "": nothing
}

func (a *api) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&a.address, "admin", cmp.Or(os.Getenv("SLUICE_ADMIN"), "127.0.0.1:8081"), "`address` of the admin API: HOST:PORT, https://HOST:PORT or unix:PATH; $SLUICE_ADMIN")
	flags.StringVar(&a.caFile, "ca-file", "", "`file` of certificates to trust, for https (default: the system's)")
	flags.StringVar(&a.tokenFile, "token-file", os.Getenv("SLUICE_TOKEN_FILE"), "`file` with the token of the admin API; $SLUICE_TOKEN_FILE")
}

// askJSON decodes the answer to ask into v.
func (a api) askJSON(ctx context.Context, method, path string, query url.Values, v any) error {
	body, err := a.ask(ctx, method, path, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("admin API at %s: not an answer of sluice: %w", a.address, err)
	}
	return nil
}

// ask returns the body of an answer. path is escaped.
func (a api) ask(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	late, unknown := lookTimeout, ""
	if method != http.MethodGet {
		late = orderTimeout
	}
	if method != http.MethodGet && a.body == "" {
		unknown = ": it may still carry out the order"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, late, fmt.Errorf("no answer within %v%s", late, unknown))
	defer cancel()
	request, err := a.request(ctx, method, path, query)
	if err != nil {
		return nil, err
	}
	response, err := a.send(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("admin API at %s: %w", a.address, err)
	}
	return body, nil
}

// refusal is an answer of the admin API with another status than 200.
type refusal struct {
	status int
	error
}

// send returns an answer with status 200. Its body must be closed.
func (a api) send(request *http.Request) (*http.Response, error) {
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, a.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20)) // what there is
		var failure struct{ Error string }
		_ = json.Unmarshal(body, &failure)                                     // may not be JSON
		if strings.Contains(string(body), "HTTP request to an HTTPS server") { // Go's answer
			failure.Error = "it uses TLS: --admin https://" + request.URL.Host
		}
		if failure.Error == "" {
			failure.Error = response.Status + ": not an answer of the admin API (--admin sets its address)"
		}
		lines := strings.Split(failure.Error, "\n") // of a configuration, say
		for i := range lines {
			lines[i] = terminal.PrintableLong(lines[i]) // it may name what a registry has
		}
		return nil, refusal{response.StatusCode, fmt.Errorf("admin API at %s: %s", a.address, strings.Join(lines, "\n"))}
	}
	return response, nil
}

// explain describes the usual errors of a request.
func (a api) explain(err error) error {
	if cause, ok := errors.AsType[*url.Error](err); ok {
		err = cause.Err // without the URL
	}
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no sluice answers at %s: is it running? (--admin sets the address)", a.address)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("admin API at %s: it does not use TLS: --admin %s", a.address, strings.TrimSuffix(strings.TrimPrefix(a.address, "https://"), "/"))
	case errors.As(err, &untrusted):
		return fmt.Errorf("admin API at %s: %w (--ca-file has the certificates to trust)", a.address, err)
	}
	return fmt.Errorf("admin API at %s: %w", a.address, err)
}

// transport returns what carries a request to the address.
func (a api) transport() (*http.Transport, error) {
	dialer := locality.NewDialer(locality.ByOperator, 0)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}
	if path, ok := strings.CutPrefix(a.address, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	}
	client, err := certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: a.caFile}})
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	transport.TLSClientConfig = client.Config()
	return transport, nil
}

// base returns the URL of the admin API.
func (a api) base() (string, error) {
	if path, ok := strings.CutPrefix(a.address, "unix:"); ok && path != "" {
		return "http://localhost", nil
	}
	scheme, authority, given := strings.Cut(a.address, "://")
	if !given {
		scheme, authority = "http", a.address
	}
	host, port, err := net.SplitHostPort(strings.TrimSuffix(authority, "/"))
	if err != nil || port == "" || scheme != "http" && scheme != "https" {
		return "", &usageError{fmt.Errorf("--admin %q: want HOST:PORT, https://HOST:PORT or unix:PATH", a.address)}
	}
	if a.caFile != "" && scheme != "https" {
		return "", &usageError{errors.New("--ca-file: only with --admin https://HOST:PORT")}
	}
	return scheme + "://" + net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port), nil
}

func (a api) request(ctx context.Context, method, path string, query url.Values) (*http.Request, error) {
	base, err := a.base()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path+"?"+query.Encode(), strings.NewReader(a.body))
	if err != nil {
		return nil, err
	}
	if a.match != "" {
		request.Header.Set("If-Match", `"`+a.match+`"`)
	}
	if a.tokenFile != "" {
		token, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return request, nil
}
