package config

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"sluice/config/regular"
)

const (
	settleTime    = 100 * time.Millisecond // without events, after a change, before the file is read
	settleTimeMax = time.Second            // limit of this wait
	pollInterval  = 10 * time.Second
)

// Watcher detects changes of the bytes of a file. It watches the directory of the file and
// the target of its symbolic links, so it detects an edit in place, a rename over
// the file, and the change of the link by which Kubernetes updates a mounted ConfigMap. It
// also reads the file every 10 seconds, because some file systems send no notifications
// (network mounts, single files mounted into a container).
type Watcher struct {
	// File is the path of the file. With Pattern it is a pattern as of [Dynamic], and the
	// Watcher detects changes of all files that match.
	File    string
	Pattern bool
	// Hash is the hash of what was read last: see [Source.Revision]. Run compares the
	// file with it.
	Hash string
	// Seen, if not nil, returns the hash of what was read last, or why it could not be read, and
	// how often it was read: by others than Changed too. After another reading, Run compares the
	// file with that in place of Hash.
	Seen func() (hash string, readings uint64)
	// Changed is called after each change, in the goroutine of Run. It is also called
	// when the file becomes unreadable.
	Changed func()
	// Problem is called if notifications are not available, once until they are or another error
	// says why not. Changes are then detected within 10 seconds. May be nil.
	Problem func(error)

	// Tests set these.
	settle, settleMax, poll time.Duration                     // as the constants above
	notify                  func() (*fsnotify.Watcher, error) // fsnotify.NewWatcher

	watched  map[string]bool
	readings uint64 // as Seen has returned last
	told     string // the last problem; empty: there has been none since a directory was watched
}

// Run watches the file until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	w.defaults()
	var events chan fsnotify.Event
	var problems chan error
	notifier, err := w.notify()
	if err != nil {
		w.problem(err)
	} else {
		defer notifier.Close()
		events, problems = notifier.Events, notifier.Errors
	}

	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	settled := time.NewTimer(w.settle) // the file may have changed before the watch began
	defer settled.Stop()
	var first time.Time // of the first event since the file was last read; zero: none
	w.follow(notifier)
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			if event.Op == fsnotify.Chmod {
				continue
			}
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			settled.Reset(min(w.settle, w.settleMax-now.Sub(first)))
			continue
		case err := <-problems: // events may be lost: read the file now
			w.problem(err)
		case <-settled.C:
		case <-poll.C:
		}
		first = time.Time{}
		w.follow(notifier)
		if w.Seen != nil {
			if hash, readings := w.Seen(); readings != w.readings {
				w.readings, w.Hash = readings, hash
			}
		}
		if hash := w.read(); hash != w.Hash {
			w.Hash = hash
			w.Changed()
		}
	}
}

func (w *Watcher) defaults() {
	if w.settle == 0 {
		w.settle, w.settleMax, w.poll = settleTime, settleTimeMax, pollInterval
	}
	if w.notify == nil {
		w.notify = fsnotify.NewWatcher
	}
	w.watched = make(map[string]bool)
}

// follow watches the directories in which a change of the file causes events. A link may
// have another target now, and a directory may have been created again.
func (w *Watcher) follow(notifier *fsnotify.Watcher) {
	if notifier == nil {
		return
	}
	current := map[string]bool{filepath.Dir(w.File): true}
	names := []string{w.File}
	if w.Pattern {
		names, _ = matching(w.File) // after an error the directory is the only place to watch
	}
	for _, name := range names {
		if target, err := filepath.EvalSymlinks(name); err == nil {
			current[filepath.Dir(target)] = true
		}
	}
	for dir := range w.watched {
		if !current[dir] {
			_ = notifier.Remove(dir) // fails if the directory is deleted
			delete(w.watched, dir)
		}
	}
	for dir := range current {
		err := notifier.Add(dir)
		if err == nil {
			w.watched[dir], w.told = true, ""
		} else if w.watched[dir] || len(w.watched) == 0 {
			delete(w.watched, dir)
			w.problem(err)
		}
	}
}

func (w *Watcher) problem(err error) {
	if w.Problem != nil && err.Error() != w.told {
		w.told = err.Error()
		w.Problem(err)
	}
}

// read returns the hash of the file, or the text of the error of reading it.
func (w *Watcher) read() string {
	if w.Pattern {
		s, err := ReadFiles(w.File)
		if err != nil {
			return err.Error()
		}
		return s.Revision
	}
	data, err := regular.ReadUpTo(w.File, maxFileBytes)
	if err != nil {
		return err.Error()
	}
	return hashOf(data)
}
