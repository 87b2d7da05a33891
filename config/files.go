package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadFiles reads the files that match a pattern: see Dynamic.File. A path without wildcards
// must exist, and so must the directory of a pattern: a volume that is not mounted is no
// empty directory.
func ReadFiles(pattern string) (Source, error) {
	s := Source{Name: pattern, Kind: KindFile}
	names, err := matching(pattern)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		data, err := readFile(name, maxFileBytes)
		if err != nil {
			return s, err
		}
		s.Documents = append(s.Documents, Document{Name: name, Text: string(data)})
	}
	s.Revision = s.Hash()
	return s, nil
}

// matching returns the paths that match a pattern, sorted. Like a shell it omits hidden
// files, such as an editor or Kubernetes keeps beside others.
func matching(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}, nil
	}
	if _, err := os.Stat(filepath.Dir(pattern)); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(filepath.Base(name), ".") })
	slices.Sort(names)
	return names, nil
}
