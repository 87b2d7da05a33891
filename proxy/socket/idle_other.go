//go:build !linux

package socket

import "syscall"

// An IdleSet is always empty: see idle_linux.go.
type IdleSet struct{}

func NewIdleSet() (*IdleSet, error)                   { return &IdleSet{}, nil }
func (s *IdleSet) Add(IdleConn, syscall.RawConn) bool { return false }
func (s *IdleSet) Take(IdleConn) bool                 { return false }
func (s *IdleSet) Len() int                           { return 0 }
func (s *IdleSet) Run()                               {}
func (s *IdleSet) Close()                             {}
