package acme

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"sluice/discovery/saved"
)

var errClosed = errors.New("acme: the storage is closed")

// files is a certmagic.FileStorage that can be closed: certmagic's jobs go on for a moment after
// the end of their context, and certmagic does not wait for them. It is safe for concurrent use.
type files struct {
	storage
	certmagic.FileStorage
	held *semaphore.Weighted // one of it is acquired for each lock that is held; close wants all

	writing sync.RWMutex // read-locked by all who create files
	closed  bool         // guarded by writing
}

// newFiles returns the storage in directory until close. copies: no operation is repeated.
func newFiles(directory string, copies bool, log zerolog.Logger) *files {
	s := &files{
		storage: storage{
			location: directory, log: log, misfits: make(map[string]bool), changed: func() <-chan struct{} { return nil },
			final: func(error) bool { return copies },
		},
		FileStorage: certmagic.FileStorage{Path: directory}, held: semaphore.NewWeighted(math.MaxInt64),
	}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// Load implements certmagic.Storage.
func (s *files) Load(ctx context.Context, key string) ([]byte, error) {
	return s.whole(ctx, key, func(ctx context.Context, key string) (value []byte, err error) {
		err = s.do(ctx, reads, func(ctx context.Context) (err error) {
			if err := ctx.Err(); err != nil {
				return err // else a name that is no longer managed would be renewed
			}
			value, err = s.FileStorage.Load(ctx, key)
			return err
		})
		return value, err
	})
}

// Exists implements certmagic.Storage, for keys that are no directories.
func (s *files) Exists(ctx context.Context, key string) bool {
	_, err := s.Load(ctx, key)
	return err == nil
}

// Store implements certmagic.Storage.
func (s *files) Store(ctx context.Context, key string, value []byte) error {
	return s.do(patiently(ctx), changes, func(ctx context.Context) error {
		s.writing.RLock()
		defer s.writing.RUnlock()
		if s.closed {
			return errClosed
		}
		name := s.Filename(key)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		// FileStorage.Store would keep what a crash leaves, such as keys.
		return saved.Replace(name, value)
	})
}

// Lock implements certmagic.Locker.
func (s *files) Lock(ctx context.Context, name string) error {
	return s.do(ctx, changes, func(ctx context.Context) error {
		_, err := s.lock(ctx, name, func(ctx context.Context, name string) (bool, error) {
			return true, s.FileStorage.Lock(ctx, name)
		})
		return err
	})
}

// TryLock implements certmagic.TryLocker.
func (s *files) TryLock(ctx context.Context, name string) (bool, error) {
	return s.lock(ctx, name, s.FileStorage.TryLock)
}

func (s *files) lock(ctx context.Context, name string, take func(context.Context, string) (bool, error)) (bool, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	if s.closed {
		return false, errClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	taken, err := take(ctx, name)
	if err != nil && s.ending.Err() != nil {
		return false, errors.Join(errClosed, err)
	}
	if err != nil || !taken {
		return false, err
	}
	if !s.held.TryAcquire(1) { // close has begun
		return false, errors.Join(errClosed, s.FileStorage.Unlock(ctx, name))
	}
	return true, nil
}

// Unlock implements certmagic.Locker.
func (s *files) Unlock(ctx context.Context, name string) error {
	defer s.held.Release(1)
	return s.FileStorage.Unlock(ctx, name)
}

// close ends the waits for locks. It waits until the locks that are held are free, so that an
// issued certificate is stored as a whole, but not longer than unlockTimeout. No file is
// created when it has returned: later calls of Store and Lock fail.
func (s *files) close() {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	_ = s.held.Acquire(ctx, math.MaxInt64) // a job that does not end in time cannot write any more
	s.writing.Lock()
	s.closed = true
	s.writing.Unlock()
}
