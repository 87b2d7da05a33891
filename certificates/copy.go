package certificates

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// A Copy is a file with the last InUse of a Collection, for a start without the store.
// It contains private keys and has the mode 0600.
type Copy struct{ path string }

// CopyIn returns the copy of a collection in a directory, which must exist.
func CopyIn(directory, source string) Copy {
	return Copy{filepath.Join(directory, url.PathEscape(source)+".json")}
}

// Load returns the state; a zero one if there is no file.
func (c Copy) Load() (s InUse, err error) {
	text, err := readFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		return InUse{}, fmt.Errorf("copy of certificates %s: %w", c.path, err)
	}
	return s, nil
}

// Save replaces the file. Without keys it does nothing: the last ones are worth more.
func (c Copy) Save(s InUse) (err error) {
	if s.IsZero() {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy of certificates %s: %w", c.path, err)
		}
	}()
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(c.path), "*.tmp") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), c.path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
