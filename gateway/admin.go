package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/regular"
	"sluice/observe/events"
	"sluice/route/places"
)

// adminUser is the admin API as a user of certificates.
const adminUser = "admin API"

// adminWriteTimeout limits the time from a request to the end of its answer: a client that does not
// read holds memory. A rollback waits for less; streams of events set their own deadlines, and
// profiles measure beside it.
const adminWriteTimeout = 2 * time.Minute

// adminServer serves the admin API, with the address and TLS that the first configuration has.
type adminServer struct {
	http        http.Server
	config      config.Admin           // the first one
	socket      *config.Socket         // in use; only the goroutine that applies configurations uses it
	certificate *certificates.Follower // nil: without TLS
	tokens      atomic.Pointer[adminTokens]
	places      *places.Places // of connections
	log         zerolog.Logger
}

// newAdminServer returns a server without a handler, which ends the streams of feed.
func newAdminServer(c config.Admin, feed *events.Feed, log zerolog.Logger) (_ *adminServer, err error) {
	all := adminConnections()
	a := &adminServer{config: c, socket: c.Socket, log: log, places: places.New(all, (all+1)/2), http: http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      adminWriteTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(log.With().Str("listener", adminName).Logger(), "", 0),
	}}
	a.http.RegisterOnShutdown(feed.Close) // else Shutdown would wait for the streams
	if c.TLS != nil {
		files := certificates.Files{Cert: c.TLS.Cert, Key: c.TLS.Key}
		if a.certificate, err = certificates.Follow(files, certificates.LogChanges("used_by", adminUser, log)); err != nil {
			return nil, fmt.Errorf("admin.tls: %w", err)
		}
	}
	return a, nil
}

func (a *adminServer) certificates() []certificates.Use {
	if a.certificate == nil {
		return nil
	}
	return []certificates.Use{{User: adminUser, Source: a.certificate}}
}

// serve serves l until close.
func (a *adminServer) serve(l net.Listener) error {
	address := endpoint(l.Addr())
	l = &adminListener{Listener: l, places: a.places, log: a.log}
	if a.certificate != nil {
		l = tls.NewListener(l, &tls.Config{
			MinVersion: certificates.MinVersion, CipherSuites: certificates.Suites,
			NextProtos: []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return a.certificate.Contents().Certificate, nil
			},
		})
	}
	if err := a.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin listener %s: %w", address, err)
	}
	return nil
}

// close waits for the requests until ctx ends, then cuts them.
func (a *adminServer) close(ctx context.Context) {
	if err := a.http.Shutdown(ctx); err != nil {
		_ = a.http.Close()
	}
}

// has reports whether c is for the address that is served: its tokens and
// permissions protect that, and do not change while another address waits for a restart.
func (a *adminServer) has(c config.Admin) bool {
	return c.Address == a.config.Address && (c.TLS == nil) == (a.config.TLS == nil)
}

// open reads the tokens of c; nil: the tokens in use stay. Before there are some, and c is for
// another address, they are those of the address that is served.
func (a *adminServer) open(c config.Admin) (*adminTokens, error) {
	now := a.tokens.Load()
	if now == nil && !a.has(c) {
		c = a.config
	}
	if now == nil || a.has(c) && (now.operateFile != c.TokenFile || now.lookFile != c.ReadTokenFile) {
		return readTokens(c.TokenFile, c.ReadTokenFile)
	}
	return nil, nil
}

// reopen reads the files of the tokens again.
func (a *adminServer) reopen() {
	tokens := a.tokens.Load()
	again, err := readTokens(tokens.operateFile, tokens.lookFile)
	if err != nil {
		a.log.Error().Err(err).Msg("the tokens of the admin API cannot be read again: the old ones stay in use")
		return
	}
	a.tokens.Store(again)
}

// adminTokens are the tokens of the admin API, and the files that contain them.
type adminTokens struct {
	admin.Tokens
	operateFile, lookFile string // empty: no token
}

func readTokens(operateFile, lookFile string) (t *adminTokens, err error) {
	t = &adminTokens{operateFile: operateFile, lookFile: lookFile}
	if t.Operate, err = readToken("admin.token_file", operateFile); err != nil {
		return nil, err
	}
	if t.Look, err = readToken("admin.read_token_file", lookFile); err != nil {
		return nil, err
	}
	if t.Look == t.Operate && t.Look != "" {
		return nil, errors.New("admin.read_token_file: it has the token of admin.token_file: want another one")
	}
	return t, nil
}

// readToken returns the token in the file that is the value of key; "" if file is empty.
func readToken(key, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	data, err := regular.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%s: %s is empty", key, file)
	}
	return token, nil
}
