//go:build linux

package main

import "errors"

func https(dir string) (address, ca string, config map[string]any, err error) {
	return "", "", nil, errors.New("no")
}
