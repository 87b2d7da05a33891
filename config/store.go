package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/config/regular"
	"sluice/discovery/saved"
)

// Limits of the file of a history. The newest revision is kept in any case.
const (
	maxHistoryBytes  = 8 << 20
	keepHistoryBytes = 6 << 20           // after old revisions are removed
	maxHistoryLines  = 2 * keepRevisions // then revisions that a History does not keep are removed
)

// historyFile is the file of a history: one revision on each line, as JSON, the oldest first. A new
// one is appended; now and then the file is replaced by one without the oldest.
//
// The writing of its History guards it.
type historyFile struct {
	path    string
	log     func(err error, message string) // see Keep
	failing bool                            // the last write has failed
	unread  error                           // why the file cannot be read; nil: it can
	lines   int                             // in the file
	size    int
	replace bool // the file has to be replaced: it does not end with the end of a revision
}

// Keep makes the history permanent: its revisions begin with the revisions in the file path, and
// Applied adds to them, while this process owns the file: see SetOwned. log is called with what is
// wrong with the file, and with nil when revisions are written again; it must not change the
// history. A directory in place of the file means history.jsonl in it. It must be called before the
// first revision is applied.
//
// A file that cannot be read is kept beside the one that replaces it. A last line
// that is cut off is no error: the process that wrote it has crashed.
func (h *History) Keep(path string, log func(err error, message string)) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "history.jsonl")
	}
	f := &historyFile{path: path, log: log, replace: true}
	revisions, highest := f.read()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revisions, h.highest, h.saved, h.file = revisions, highest, highest, f
}

// read returns the revisions in the file, and the highest number of one that it has or had.
func (f *historyFile) read() (revisions []Revision, highest uint64) {
	data, err := regular.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	revisions, highest, decodeErr := decodeHistory(f.path, data)
	if f.unread = errors.Join(err, decodeErr); f.unread == nil && len(data) > 0 {
		f.lines, f.size, f.replace = bytes.Count(data, []byte{'\n'}), len(data), data[len(data)-1] != '\n'
	}
	return revisions, highest
}

// decodeHistory returns the revisions of a file, and the highest number in it, which it also
// returns with an error, as far as the file shows it. A revision replaces the ones before it that
// do not have a lower number: it is a later text of the same one, or an earlier version of sluice
// has used its number twice.
func decodeHistory(file string, data []byte) (revisions []Revision, highest uint64, err error) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		var r Revision
		failed := json.Unmarshal(line, &r)
		switch {
		case failed != nil && !bytes.HasSuffix(line, []byte("\n")): // the write was cut off
		case failed != nil:
			_, _ = fmt.Sscanf(string(line[:min(len(line), 40)]), `{"number":%d,`, &r.Number) // of a line that is damaged further on
			err = cmp.Or(err, fmt.Errorf("%s:%d: not a revision: %w", file, number, failed))
		case len(r.Sources) == 0 || len(r.Sources[0].Documents) != 1:
			err = cmp.Or(err, fmt.Errorf("%s:%d: not a revision: it has no configuration file", file, number))
		default:
			for n := len(revisions); n > 0 && revisions[n-1].Number >= r.Number; n-- {
				revisions = revisions[:n-1]
			}
			revisions = append(revisions, r)
		}
		highest = max(highest, r.Number)
	}
	if err != nil {
		return nil, highest, err
	}
	return newest(revisions), highest, nil
}

// encodeHistory returns the lines of the newest revisions that fit into the limit.
func encodeHistory(revisions []Revision) (lines [][]byte, err error) {
	size := 0
	for _, r := range slices.Backward(revisions) {
		line, err := encodeRevision(r)
		if err != nil {
			return nil, err
		}
		if size += len(line); size > keepHistoryBytes && len(lines) > 0 {
			break
		}
		lines = append(lines, line)
	}
	slices.Reverse(lines)
	return lines, nil
}

func encodeRevision(r Revision) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	return append(line, '\n'), nil
}

// save writes the last revision. The others are in the file, unless it is to be replaced.
func (f *historyFile) save(revisions []Revision) {
	err := f.putAside()
	if err == nil {
		err = f.write(revisions)
	}
	if err != nil {
		f.log(err, "the history cannot be written: what is applied now is lost at a restart")
	} else if f.failing {
		f.log(nil, "the history is written again")
	}
	f.failing, f.replace = err != nil, err != nil
}

// putAside keeps a file that cannot be read: it may be the only place of revisions and pins.
func (f *historyFile) putAside() error {
	if f.unread == nil {
		return nil
	}
	aside := f.path + time.Now().UTC().Format(".unreadable-20060102T150405.000Z")
	if err := os.Rename(f.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.log(fmt.Errorf("%w; the file is kept as %s", f.unread, aside), "the history cannot be read: it goes on without the revisions in the file")
	f.unread = nil
	return nil
}

func (f *historyFile) write(revisions []Revision) error {
	line, err := encodeRevision(revisions[len(revisions)-1])
	if err != nil {
		return err
	}
	if !f.replace && f.lines < maxHistoryLines && f.size+len(line) <= maxHistoryBytes && appendTo(f.path, line) == nil {
		f.lines, f.size = f.lines+1, f.size+len(line)
		return nil
	}
	lines, err := encodeHistory(revisions)
	if err != nil {
		return err
	}
	data := bytes.Join(lines, nil)
	f.lines, f.size = len(lines), len(data)
	return saved.Replace(f.path, data)
}

// appendTo adds a line to a file that exists, and waits until it is on the disk.
func appendTo(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync(), f.Close())
}

// MarshalJSON returns the revisions for another process, as many as a file would have: those of
// large documents would take longer than that process waits. They may contain secrets.
func (h *History) MarshalJSON() ([]byte, error) {
	revisions := h.Revisions()
	slices.Reverse(revisions)
	lines, err := encodeHistory(revisions)
	return slices.Concat([]byte("["), bytes.Join(lines, []byte(",")), []byte("]")), err
}

// UnmarshalJSON replaces the revisions by another process's.
func (h *History) UnmarshalJSON(data []byte) error {
	var revisions []Revision
	if err := json.Unmarshal(data, &revisions); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revisions = revisions
	h.highest = h.lastLocked().Number
	return nil
}
