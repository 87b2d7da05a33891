package sluicetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Answer is what a client has got.
type Answer struct {
	*http.Response
	Text string // its body, without the white space around it
}

// String returns the status, and the reason that sluice gives, if there is one: "403
// client_denied".
func (a Answer) String() string {
	return strings.TrimSpace(fmt.Sprint(a.StatusCode, " ", a.Header.Get("X-Sluice-Reason")))
}

// Ask sends a request without a body. header has names and values in turn.
func Ask(ctx context.Context, client *http.Client, method, url string, header ...string) (a Answer, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return a, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	if a.Response, err = client.Do(request); err != nil {
		return a, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	a.Text = strings.TrimSpace(string(body))
	return a, err
}
