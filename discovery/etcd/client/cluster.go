package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"sluice/certificates"
	"sluice/config/regular"
)

// Options are how to connect to a cluster.
type Options struct {
	Endpoints    string                 // URLs with commas between them; all http or all https
	User         string                 // empty: without authentication
	PasswordFile string                 // read again for each login
	TLS          certificates.ClientTLS // for https
}

const (
	// A member that answers nothing for keepAliveTime + keepAliveTimeout is left for
	// another one. Servers refuse pings more often than every 5 s.
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second

	// maxReconnectDelay limits the time between two attempts to connect to a member. The
	// default of gRPC is two minutes.
	maxReconnectDelay = 2 * time.Second
	connectTimeout    = 5 * time.Second

	// maxRetries limits how often the client repeats a query by itself. With its default
	// of 100 the only error is that the time is over.
	maxRetries = 3

	// maxAnswerBytes limits an answer: a larger one is an error, and changes nothing.
	maxAnswerBytes = 64 << 20
)

// Clusters are the clusters in use, so that followers of one cluster share a connection. It is
// safe for concurrent use.
type Clusters struct {
	certificatesChanged func(endpoints string, err error)

	mu  sync.Mutex // guards all
	all map[Options]*Cluster
}

// NewClusters returns an empty set. certificatesChanged is called when the files of a cluster
// have changed; err is why they cannot be used, and the previous ones stay in use.
func NewClusters(certificatesChanged func(endpoints string, err error)) *Clusters {
	return &Clusters{certificatesChanged: certificatesChanged, all: make(map[Options]*Cluster)}
}

// Cluster returns the cluster with these options. It reads the files of certificates, but does
// not connect.
func (c *Clusters) Cluster(o Options) (*Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[o]; known != nil {
		return known, nil
	}
	cluster := &Cluster{options: o, heartbeatTimeout: heartbeatTimeout, turn: make(chan struct{}, 1)}
	cluster.connect = cluster.newClient
	if strings.HasPrefix(o.Endpoints, "https:") {
		var err error
		cluster.tls, err = certificates.NewClient(certificates.ClientOptions{
			ClientTLS: o.TLS,
			Changed:   func(err error) { c.certificatesChanged(o.Endpoints, err) },
		})
		if err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	c.all[o] = cluster
	return cluster, nil
}

// Certificates returns the certificates of the clusters that are followed and use TLS, by their
// endpoints.
func (c *Clusters) Certificates() map[string]certificates.Source {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]certificates.Source)
	for o, cluster := range c.all {
		if cluster.tls != nil && cluster.users.Load() > 0 {
			all[o.Endpoints] = cluster.tls
		}
	}
	return all
}

// Cluster is an etcd cluster. It is connected while it is followed. It is safe for concurrent use.
type Cluster struct {
	options Options
	tls     *certificates.Client // nil: without TLS
	connect func(ctx context.Context, password string) (store, error)

	heartbeatTimeout time.Duration // the constant; shorter in a test

	users atomic.Int64 // followers

	turn     chan struct{} // capacity 1: who has sent owns the fields below
	store    store         // nil: not connected
	password string        // that store has logged in with
	doubted  store         // its login may be dead; nil: none is
}

// store is the part of a client that followers use.
type store interface {
	Get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error)
	Watch(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan
	// AwaitConnected waits until a member is connected, or, without connected, until none
	// is. It returns false if ctx ends before.
	AwaitConnected(ctx context.Context, connected bool) bool
	Close() error
}

// keepConnected keeps the connection open until the caller, and all others, have called done.
func (c *Cluster) keepConnected() (done func()) {
	c.users.Add(1)
	return func() {
		c.users.Add(-1)
		c.turn <- struct{}{}
		defer func() { <-c.turn }()
		if c.users.Load() == 0 {
			c.closeStore()
		}
	}
}

// closeStore closes the connection. The caller has the turn.
func (c *Cluster) closeStore() {
	if c.store != nil {
		_ = c.store.Close() // reports only that its context has ended
		c.store = nil
	}
}

// doubt says that the login of s may be dead: a server forgets its tokens when it restarts. etcd's
// client logs in again with the dead token, which etcd 3.4 does not answer. A new client is needed.
func (c *Cluster) doubt(s store) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.doubted = s
}

// connected returns the connection. It connects if there is none, and again if there is another
// valid password or the login may be dead: others share the connection.
func (c *Cluster) connected(ctx context.Context) (store, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	password, err := c.readPassword()
	if err == nil && (c.store == nil || password != c.password || c.doubted == c.store) {
		err = c.connectWith(ctx, password)
	}
	// After an error, the password of this connection may still be valid.
	if c.store != nil {
		return c.store, nil
	}
	return nil, err
}

// connectWith replaces the connection, if the password is valid. The caller has the turn.
func (c *Cluster) connectWith(ctx context.Context, password string) error {
	opened, err := c.connect(ctx, password)
	if err != nil {
		return err
	}
	c.closeStore()
	c.store, c.password, c.doubted = opened, password, nil
	return nil
}

func (c *Cluster) readPassword() (string, error) {
	if c.options.PasswordFile == "" {
		return "", nil
	}
	data, err := regular.ReadFile(c.options.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return "", fmt.Errorf("password file: %s is empty", c.options.PasswordFile)
	}
	return password, nil
}

// newClient returns a new client. With a user it logs in, which needs the cluster.
func (c *Cluster) newClient(ctx context.Context, password string) (store, error) {
	live, end := context.WithCancel(context.Background())
	// The client lives longer than ctx, which limits only the login.
	stop := context.AfterFunc(ctx, end)
	options := []grpc.DialOption{
		grpc.WithUserAgent("sluice"),
		grpc.WithChainUnaryInterceptor(record),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: connectTimeout,
		}),
	}
	if c.tls != nil {
		options = append(options, grpc.WithTransportCredentials(freshCredentials{credentials.NewTLS(c.tls.Config()), c.tls.Config}))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            strings.Split(c.options.Endpoints, ","),
		Username:             c.options.User,
		Password:             password,
		Context:              live,
		DialTimeout:          answerTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		DialOptions:          options,
		MaxUnaryRetries:      maxRetries,
		MaxCallRecvMsgSize:   maxAnswerBytes,
		Logger:               zap.NewNop(), // it writes to standard error otherwise
	})
	if err != nil {
		end()
		return nil, fmt.Errorf("log in: %w", err)
	}
	opened := &connection{client, end}
	if !stop() {
		_ = opened.Close()
		return nil, context.Cause(ctx)
	}
	return opened, nil
}

// connection is a client with the function that ends its context.
type connection struct {
	*clientv3.Client
	end context.CancelFunc
}

// Close closes the connection, and waits until nothing of it runs.
func (c *connection) Close() error {
	defer c.end()
	return c.Client.Close()
}

// AwaitConnected implements store.
func (c *connection) AwaitConnected(ctx context.Context, connected bool) bool {
	conn := c.ActiveConnection()
	for {
		state := conn.GetState()
		if (state == connectivity.Ready) == connected {
			return true
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// traceKey is the key of a *trace in a context.
type traceKey struct{}

// trace is what is known about a query beside its result.
type trace struct {
	member peer.Peer
	err    error // of the last attempt: the client returns only that the time is over
}

// record records an attempt of a query, if its context has a trace.
func record(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	t, ok := ctx.Value(traceKey{}).(*trace)
	if !ok {
		return invoke(ctx, method, request, reply, conn, options...)
	}
	t.err = invoke(ctx, method, request, reply, conn, append(options, grpc.Peer(&t.member))...)
	return t.err
}

// freshCredentials take a new TLS configuration for each connection.
type freshCredentials struct {
	credentials.TransportCredentials // of a client: it says what they are
	config                           func() *tls.Config
}

func (c freshCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config := c.config()
	return credentials.NewTLS(config).ClientHandshake(ctx, cmp.Or(config.ServerName, authority), raw)
}

func (c freshCredentials) Clone() credentials.TransportCredentials { return c }

func (c freshCredentials) OverrideServerName(string) error { return nil }
