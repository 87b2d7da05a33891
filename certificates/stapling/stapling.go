// Package stapling has the answers of authorities that their certificates are not revoked (OCSP, RFC 6960), which a listener
// staples to its certificates.
package stapling

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ocsp"

	"sluice/observe/panics"
)

const (
	maxQuestions = 4 // at a time
	askTimeout   = 10 * time.Second
	maxHead      = 16 << 10 // bytes of an answer's head
	maxAnswer    = 64 << 10 // bytes of an answer

	leastPause   = 10 * time.Second // between two questions
	firstRetry   = time.Minute      // after a question that has failed; it doubles
	longestRetry = time.Hour
	lookEvery    = time.Minute // between two looks at the clock
	// margin is how long before its end a staple is not used any more: clients' clocks differ.
	margin = 10 * time.Second
)

// Options are required.
type Options struct {
	// MayConnect returns an error for an address to which no connection is opened: who writes a certificate chooses the
	// name of its responder.
	MayConnect func(netip.AddrPort) error
	Changed    func() // called after a change of a staple. It may call the Manager
	Log        zerolog.Logger
}

// A Manager asks responders about certificates, in the background, and has their last answers. It is safe for concurrent use.
type Manager struct {
	options Options
	client  *http.Client
	now     func() time.Time // the clock; tests set it
	places  chan struct{}    // has an element for each question in progress

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below.
	staples map[string]*staple // by the DER of the certificate
	adopted map[string][]byte  // answers of an old process, by fingerprint
}

// A staple is the state of one certificate.
type staple struct {
	leaf, issuer *x509.Certificate
	cancel       context.CancelFunc
	tried        chan struct{} // closed when it was asked once, or has an answer

	// The manager's mu guards the fields below.
	answer []byte    // nil: none
	until  time.Time // of answer
	err    error     // of the last question
}

// New returns a Manager without certificates. The caller must call Close.
func New(o Options) *Manager {
	// net/http goes on with a dial when its question has ended.
	dialer := net.Dialer{Timeout: askTimeout, Control: func(_, text string, _ syscall.RawConn) error { // after the resolution of the name
		address, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		return o.MayConnect(address)
	}}
	m := &Manager{options: o, now: time.Now, places: make(chan struct{}, maxQuestions), staples: make(map[string]*staple), client: &http.Client{
		Timeout:       askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHead},
	}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends all questions.
func (m *Manager) Close() {
	m.cancel()
	m.running.Wait()
}

// Follow has responders asked about the certificates in use that name one, and ends that for all others.
func (m *Manager) Follow(all []*tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[string]bool)
	for _, c := range all {
		if len(c.Leaf.OCSPServer) == 0 {
			continue
		}
		key := string(c.Leaf.Raw)
		wanted[key] = true
		s := m.staples[key]
		if s != nil && s.issuer == nil && len(c.Certificate) > 1 { // its file has got the certificate of its authority
			s.cancel()
			s = nil
		}
		if s == nil && m.ctx.Err() == nil {
			m.staples[key] = m.start(c)
		}
	}
	for key, s := range m.staples {
		if !wanted[key] {
			s.cancel()
			delete(m.staples, key)
		}
	}
}

// start begins to ask about a certificate. The caller holds mu.
func (m *Manager) start(c *tls.Certificate) *staple {
	s := &staple{leaf: c.Leaf, tried: make(chan struct{})}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(m.ctx)
	if len(c.Certificate) > 1 {
		s.issuer, _ = x509.ParseCertificate(c.Certificate[1]) // it was parsed before
	}
	first := sync.OnceFunc(func() { close(s.tried) })
	var next time.Time
	if s.issuer == nil {
		s.err = errors.New("its file has no certificate of its authority")
		first()
		return s
	}
	key := fingerprint(c.Leaf)
	if answer := m.adopted[key]; answer != nil {
		delete(m.adopted, key) // later ones are newer
		if response, err := check(answer, s.leaf, s.issuer, m.now()); err == nil {
			s.answer, s.until = answer, response.NextUpdate
			next = refreshAt(response)
			first()
		}
	}
	m.running.Go(func() {
		panics.Repeat(ctx.Done(), panics.Task, firstRetry, func() { m.follow(ctx, s, next, first) })
	})
	return s
}

// follow asks about a certificate, the first time at next, until ctx ends.
func (m *Manager) follow(ctx context.Context, s *staple, next time.Time, first func()) {
	retry := firstRetry
	for {
		if !m.await(ctx, next) {
			return
		}
		answer, response, err := m.ask(ctx, s.leaf, s.issuer)
		if ctx.Err() != nil {
			return
		}
		now := m.now()
		if err != nil {
			next, retry = now.Add(retry), min(2*retry, longestRetry)
		} else {
			next, retry = refreshAt(response), firstRetry
			// The responder may repeat its last answer, as one whose answers are made once a day.
			pause := min(response.NextUpdate.Sub(now)/8, longestRetry)
			if soonest := now.Add(max(pause, leastPause)); next.Before(soonest) {
				next = soonest
			}
		}
		m.note(s, answer, response, err)
		first()
		m.options.Changed()
	}
}

// await waits until a time by the clock, which goes on while the machine sleeps and may be set, but not for longer than it is away
// now. It returns false if ctx ends before.
func (m *Manager) await(ctx context.Context, until time.Time) bool {
	over, look := time.NewTimer(until.Sub(m.now())), time.NewTicker(lookEvery) // they stand still while the machine sleeps
	defer over.Stop()
	defer look.Stop()
	until = until.Round(0)
	for {
		select {
		case <-over.C:
			return true
		case <-look.C:
			if !m.now().Before(until) {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// note notes the result of a question. A failure takes a staple away only if the authority says that the certificate is
// revoked.
func (m *Manager) note(s *staple, answer []byte, response *ocsp.Response, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	log := m.options.Log.With().Strs("names", s.leaf.DNSNames).Str("responder", s.leaf.OCSPServer[0]).Logger()
	switch {
	case err == nil:
		if s.answer == nil || s.err != nil {
			log.Info().Time("until", response.NextUpdate).Msg("a certificate has a staple")
		}
		s.answer, s.until = answer, response.NextUpdate
	case s.err == nil || s.err.Error() != err.Error():
		log.Warn().Err(err).Msg("no new staple for a certificate: its responder is asked again later")
	}
	if errors.Is(err, errRevoked) {
		s.answer, s.until = nil, time.Time{}
	}
	s.err = err
}

// Staple returns the answer about a certificate; nil: there is none that is valid.
func (m *Manager) Staple(leaf *x509.Certificate) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.staples[string(leaf.Raw)]; s != nil && m.now().Before(s.until.Add(-margin)) {
		return s.answer
	}
	return nil
}

// Status returns until when the staple of a certificate is used, and why the last question has failed; the zero time: there
// is no staple. A certificate that names no responder has neither.
func (m *Manager) Status(leaf *x509.Certificate) (until time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.staples[string(leaf.Raw)]
	if s == nil {
		return time.Time{}, nil
	}
	if until = s.until; !m.now().Before(until.Add(-margin)) {
		until = time.Time{}
	}
	return until, s.err
}

// Await waits until all certificates have a staple or were asked about once, or until ctx ends.
func (m *Manager) Await(ctx context.Context) {
	for _, s := range m.all() {
		select {
		case <-s.tried:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) all() []*staple {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.staples))
}

// State returns the answers, for a new process.
func (m *Manager) State() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := make(map[string][]byte)
	for _, s := range m.staples {
		if s.answer != nil {
			state[fingerprint(s.leaf)] = s.answer
		}
	}
	return state
}

// Adopt uses the answers of an old process for certificates that are followed later, if they are valid.
func (m *Manager) Adopt(state map[string][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adopted = state
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
