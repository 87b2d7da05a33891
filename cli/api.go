package cli

import (
	"cmp"
	"context"
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
)

// api is the admin API of a running sluice.
type api struct {
	address   string
	tokenFile string // "": no token
	match     string // hash of the configuration that an order is about; "": any
}

func (a *api) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&a.address, "admin", "127.0.0.1:8081", "`address` of the admin API")
	flags.StringVar(&a.tokenFile, "token-file", "", "`file` with the token of the admin API")
}

// decode decodes the body of an answer into v.
func (a api) decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("admin API at %s: not an answer of sluice: %w", a.address, err)
	}
	return nil
}

// ask returns the body of an answer. path is escaped.
func (a api) ask(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
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
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err // without the URL
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("no sluice answers at %s: is it running? (--admin sets the address)", a.address)
		}
		return nil, fmt.Errorf("admin API at %s: %w", a.address, err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		var failure struct{ Error string }
		_ = json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&failure) // an error of another program may not be JSON
		return nil, refusal{response.StatusCode, fmt.Errorf("admin API at %s: %s", a.address, cmp.Or(failure.Error, response.Status))}
	}
	return response, nil
}

func (a api) request(ctx context.Context, method, path string, query url.Values) (*http.Request, error) {
	host, port, err := net.SplitHostPort(a.address)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--admin %q: want HOST:PORT", a.address)}
	}
	u := "http://" + net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port) + path + "?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, u, nil)
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
