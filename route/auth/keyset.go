package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/config/regular"
	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/observe/excerpt"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/route/places"
)

// When the keys of an issuer are read from its URL. A token with an unknown key or a wrong
// signature asks for them at once, but there is one query at a time, and queryFloor between two.
const (
	readEvery    = 5 * time.Minute
	retryEvery   = 10 * time.Second // after a failure
	queryFloor   = 5 * time.Second
	queryTimeout = 5 * time.Second
	// MaxKeyWait is how long a request waits for a query that begins after it.
	MaxKeyWait = queryFloor + 2*queryTimeout

	maxFault = 400 // bytes of why keys cannot be read
)

// A KeySet has the public keys of an issuer, from a file or a URL. After a failure the last ones
// stay. It is safe for concurrent use.
type KeySet struct {
	path    string         // of the file; empty: url
	url     units.Location // empty: path
	client  *http.Client
	current atomic.Pointer[keys] // nil: they have not been read yet
	waiting *places.Places       // of requests for other keys
	demand  wake.One             // a request needs a query
	end     func()               // ends Start; nil: not started, or a file

	mu sync.Mutex
	// mu guards the fields below.
	begun, ended uint64       // queries
	change       wake.All     // a query has ended
	status       KeySetStatus // without what current has
}

// KeySetStatus is the state of a KeySet.
type KeySetStatus struct {
	Source   string // the path or the URL, without credentials
	Keys     []KeyStatus
	Ignored  int       // keys that cannot be used
	Read     time.Time // when the keys in use were read last; zero: there are none
	NextRead time.Time // when they are read again, unless a token asks for it before
	Err      error     // of the last attempt
	Reads    uint64    // attempts to read them
	Failures uint64    // of these
}

// KeyStatus is a key of a set.
type KeyStatus struct {
	ID         string
	Algorithms []jose.SignatureAlgorithm
}

// SavedKeys are the keys of a KeySet for another process.
type SavedKeys struct {
	Text []byte    `json:"text"`
	Read time.Time `json:"read"`
}

// OpenKeys returns the keys of a file.
func OpenKeys(path string) (*KeySet, error) {
	s := newKeySet(path)
	s.path = path
	_, err := s.Refresh()
	return s, err
}

// NewKeys returns the keys at a URL, which are read from Start on; before, they are the saved ones.
// control is as for [NewForward].
func NewKeys(at units.Location, control locality.Control, saved SavedKeys) *KeySet {
	s := newKeySet(at.String())
	s.url = at
	s.client = clientOf(control, queryTimeout)
	if k, err := parseKeys(saved.Text); err == nil {
		s.current.Store(k)
		s.status.Read = saved.Read
	}
	return s
}

func newKeySet(source string) *KeySet {
	return &KeySet{
		waiting: places.New(maxConnections, maxPerBlock),
		demand:  wake.NewOne(), status: KeySetStatus{Source: source},
	}
}

// Start begins to read the keys of a URL, unless it has, until Close or the end of ctx. It must not
// be called concurrently with itself and Close.
func (s *KeySet) Start(ctx context.Context) {
	if s.client == nil || s.end != nil {
		return
	}
	s.end = panics.Start(ctx, panics.Task, s.follow)
}

// Close ends what Start has begun. The keys stay.
func (s *KeySet) Close() {
	if s.end != nil {
		s.end()
		s.client.CloseIdleConnections()
	}
}

// follow reads the keys until ctx ends.
func (s *KeySet) follow(ctx context.Context) {
	for {
		interval := readEvery
		if !s.query(ctx) {
			interval = retryEvery
		}
		s.mu.Lock()
		s.status.NextRead = time.Now().Add(interval)
		s.mu.Unlock()
		floor, next := time.After(queryFloor), time.After(interval)
		if wake.Await(ctx, floor) != nil {
			return
		}
		select {
		case <-next:
		case <-s.demand:
		case <-ctx.Done():
			return
		}
	}
}

// query reads the keys once, and reports whether it could.
func (s *KeySet) query(ctx context.Context) bool {
	s.mu.Lock()
	s.begun++
	select {
	case <-s.demand: // this query is for it
	default:
	}
	s.mu.Unlock()
	err := panics.Err
	defer func() { s.recordEnd(err) }()
	var text []byte
	if text, err = s.ask(ctx); err == nil {
		_, err = s.use(text)
	}
	return err == nil
}

// recordEnd wakes who waits for a query.
func (s *KeySet) recordEnd(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.begun
	s.change.Send()
	s.recordLocked(err)
}

func (s *KeySet) recordLocked(err error) {
	s.status.Reads++
	if s.status.Err = nil; err != nil { // it may have texts of the issuer, which may repeat the URL
		s.status.Err = errors.New(excerpt.Of(s.url.MaskIn(err.Error()), maxFault))
		s.status.Failures++
		return
	}
	s.status.Read = time.Now()
}

// ask asks the URL.
func (s *KeySet) ask(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.Reveal(), nil)
	if err != nil {
		return nil, err
	}
	response, err := send(s.client, request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return readKeys(response.Body)
}

// readKeys reads the text of a set, which has a limit.
func readKeys(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxKeySetBytes+1))
	if err == nil && len(text) > maxKeySetBytes {
		err = fmt.Errorf("is larger than %d bytes", maxKeySetBytes)
	}
	return text, err
}

// use uses the keys of a text, and reports whether they are others.
func (s *KeySet) use(text []byte) (changed bool, err error) {
	if before := s.current.Load(); before != nil && bytes.Equal(before.text, text) {
		return false, nil // what is remembered stays
	}
	k, err := parseKeys(text)
	if err == nil {
		s.current.Store(k)
	}
	return err == nil, err
}

// Refresh reads a file again, and reports whether it has changed. It does nothing with a URL.
func (s *KeySet) Refresh() (changed bool, err error) {
	if s.client != nil {
		return false, nil
	}
	defer func() {
		s.mu.Lock()
		s.recordLocked(err)
		s.mu.Unlock()
	}()
	f, err := regular.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("keys: %w", err)
	}
	defer f.Close()
	text, err := readKeys(f)
	if err == nil {
		changed, err = s.use(text)
	}
	if err != nil {
		return false, fmt.Errorf("keys: %s: %w", s.path, err)
	}
	return changed, nil
}

// Await waits until the keys have been asked for once, or ctx ends.
func (s *KeySet) Await(ctx context.Context) {
	if s.end != nil && s.current.Load() == nil {
		_ = s.await(ctx, 1)
	}
}

// await waits until a number of queries have ended, or ctx ends. The error is that of the last
// query, or of ctx.
func (s *KeySet) await(ctx context.Context, ended uint64) error {
	for {
		change := s.change.Wait() // before the look
		s.mu.Lock()
		done, err := s.ended >= ended, s.status.Err
		s.mu.Unlock()
		if done {
			return err
		}
		if err := wake.Await(ctx, change); err != nil {
			return err
		}
	}
}

// with returns keys, of which one may be that of a token with this header. If there are some and
// none is, and the token names its key, the keys are read again. The error is a *Fault.
func (s *KeySet) with(id string, algorithm jose.SignatureAlgorithm, client places.Block, waiting func() (context.Context, context.CancelFunc)) (*keys, error) {
	k := s.current.Load()
	if k == nil {
		s.require()
		return nil, errKeysUnknown
	}
	if len(k.of(id, algorithm)) > 0 {
		return k, nil
	}
	if id == "" || s.client == nil {
		return nil, errUnknownKey
	}
	err := s.newer(client, waiting)
	if k = s.current.Load(); len(k.of(id, algorithm)) > 0 {
		return k, nil
	}
	if err != nil {
		return nil, errKeysUnknown
	}
	return nil, errUnknownKey
}

// newer waits until a query that begins after the call has ended.
func (s *KeySet) newer(client places.Block, waiting func() (context.Context, context.CancelFunc)) error {
	ctx, end := waiting()
	defer end()
	ended := s.require() // before the wait for a place, in which that query may end
	if err := s.waiting.Take(client, func() (context.Context, context.CancelFunc) { return ctx, func() {} }); err != nil {
		return err
	}
	defer s.waiting.Give(client)
	return s.await(ctx, ended)
}

// require asks for a query, and returns how many will have ended with it.
func (s *KeySet) require() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demand.Send()
	return s.begun + 1
}

// Save returns the keys for another process.
func (s *KeySet) Save() (saved SavedKeys, ok bool) {
	k := s.current.Load()
	if k == nil {
		return saved, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return SavedKeys{k.text, s.status.Read}, true
}

// Status returns the state.
func (s *KeySet) Status() KeySetStatus {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	if k := s.current.Load(); k != nil {
		status.Ignored = k.ignored
		for i := range k.public {
			status.Keys = append(status.Keys, KeyStatus{k.public[i].id, k.public[i].algorithms})
		}
	}
	return status
}
