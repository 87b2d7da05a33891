package config

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settleTime    = 100 * time.Millisecond // a change is looked at when the file has been left alone for so long
	settleTimeMax = time.Second            // or after this, however busy its directory is
	pollInterval  = 10 * time.Second
)

// Watcher notices when the bytes of a file change. It watches the directory
// of the file and the one that its symbolic links lead to, so that it sees an
// edit in place, an editor's rename over the file, and the swap of the link
// by which Kubernetes updates a mounted ConfigMap. Besides that it looks at
// the file every 10 seconds, for file systems that do not notify (network
// mounts, single files mounted into a container).
type Watcher struct {
	File string
	// Hash is that of the revision in use: the file is compared with it.
	Hash string
	// Changed is called after each change, from the goroutine of Run. A file
	// that cannot be read any more has changed, too.
	Changed func()
	// Problem is called when notifications are not available, so that changes
	// are noticed within 10 seconds only. May be nil.
	Problem func(error)

	// Tests change these.
	settle, settleMax, poll time.Duration                     // as the constants above
	notify                  func() (*fsnotify.Watcher, error) // fsnotify.NewWatcher

	watched map[string]bool
}

// Run watches until ctx ends.
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
	settled := time.NewTimer(w.settle) // the file may have changed before it was watched
	defer settled.Stop()
	var first time.Time // of the events that are settling; zero: none
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
		case err := <-problems: // events may be lost: look now
			w.problem(err)
		case <-settled.C:
		case <-poll.C:
		}
		first = time.Time{}
		w.follow(notifier)
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

// follow watches the directories in which a change of the file can show. They
// change when a link does; one that was deleted and made again is a new one.
func (w *Watcher) follow(notifier *fsnotify.Watcher) {
	if notifier == nil {
		return
	}
	wanted := map[string]bool{filepath.Dir(w.File): true}
	if target, err := filepath.EvalSymlinks(w.File); err == nil {
		wanted[filepath.Dir(target)] = true
	}
	for dir := range w.watched {
		if !wanted[dir] {
			_ = notifier.Remove(dir) // it may be gone already
			delete(w.watched, dir)
		}
	}
	for dir := range wanted {
		err := notifier.Add(dir)
		if err == nil {
			w.watched[dir] = true
		} else if w.watched[dir] || len(w.watched) == 0 {
			delete(w.watched, dir)
			w.problem(err)
		}
	}
}

func (w *Watcher) problem(err error) {
	if w.Problem != nil {
		w.Problem(err)
	}
}

// read returns what the file's state is known by: its hash, or its error.
func (w *Watcher) read() string {
	data, err := readFile(w.File)
	if err != nil {
		return err.Error()
	}
	return hashOf(data)
}
