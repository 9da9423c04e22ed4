package nplusone

import (
	"hash/maphash"
	"math"
	"math/bits"
	"reflect"
	"time"
)

var seed = maphash.MakeSeed()

// mix folds v into h.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9E3779B97F4A7C15, v^0xD6E8FEB86659FD93)
	return hi ^ lo ^ bits.RotateLeft64(h, 23)
}

func hashString(h uint64, s string) uint64 { return mix(h, maphash.String(seed, s)) }

// hashArgs hashes the parameters of e: all of them, and those that its
// equalities compare with. Values that are written in the text count, where
// there are any. It calls no code of the user's: a driver.Valuer is hashed by
// what it holds.
func hashArgs(e *event) (all, keys uint64) {
	all = uint64(len(e.args))
	for _, v := range e.args {
		all = hashArg(all, v, e.opaque)
	}
	literal := false
	for i := range e.text.Where {
		literal = literal || e.text.Where[i].Literal
	}
	if literal || len(e.args) == 0 {
		all = hashString(all, e.sql)
	}
	if !e.text.Limit || literal || len(e.text.Where) == 0 && len(e.text.Reads) != 1 {
		return all, all // of a join the conditions are not known
	}
	for i := range e.text.Where {
		for _, n := range e.text.Where[i].Args {
			if n < len(e.args) {
				keys = hashArg(keys, e.args[n], e.opaque)
			}
		}
	}
	return all, keys
}

// The kinds of value that hashArg tells apart, so that 1 and "1" differ.
const (
	hashNil uint64 = iota + 1
	hashInt
	hashUint
	hashFloat
	hashBool
	hashText
	hashBytes
	hashTime
	hashAddress
	hashDeep
)

// hashArg folds one parameter into h, without an allocation for what drivers
// are usually given.
func hashArg(h uint64, v any, opaque bool) uint64 {
	switch x := v.(type) {
	case nil:
		return mix(h, hashNil)
	case int:
		return mix(mix(h, hashInt), uint64(x))
	case int64:
		return mix(mix(h, hashInt), uint64(x))
	case int32:
		return mix(mix(h, hashInt), uint64(x))
	case uint:
		return mix(mix(h, hashUint), uint64(x))
	case uint64:
		return mix(mix(h, hashUint), x)
	case uint32:
		return mix(mix(h, hashUint), uint64(x))
	case string:
		return hashString(mix(h, hashText), x)
	case bool:
		if x {
			return mix(mix(h, hashBool), 1)
		}
		return mix(mix(h, hashBool), 0)
	case float64:
		return mix(mix(h, hashFloat), math.Float64bits(x))
	case []byte:
		if !opaque {
			return mix(mix(h, hashBytes), maphash.Bytes(seed, x))
		}
	case time.Time:
		return mix(mix(h, hashTime), uint64(x.UnixNano()))
	}
	return hashValue(h, reflect.ValueOf(v), opaque, 0)
}

// The bounds of what is looked at of one parameter.
const (
	maxDepth    = 6
	maxElements = 1024
)

func hashValue(h uint64, v reflect.Value, opaque bool, depth int) uint64 {
	if depth > maxDepth {
		return h
	}
	switch v.Kind() {
	case reflect.Invalid:
		return mix(h, hashNil)
	case reflect.Bool:
		return hashArg(h, v.Bool(), opaque)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return mix(mix(h, hashInt), uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return mix(mix(h, hashUint), v.Uint())
	case reflect.Float32, reflect.Float64:
		return mix(mix(h, hashFloat), math.Float64bits(v.Float()))
	case reflect.String:
		return hashString(mix(h, hashText), v.String())
	case reflect.Pointer:
		switch {
		case v.IsNil():
			return mix(h, hashNil)
		case opaque:
			return mix(mix(h, hashAddress), uint64(v.Pointer()))
		}
		return hashValue(h, v.Elem(), opaque, depth+1)
	case reflect.Interface:
		return hashValue(h, v.Elem(), opaque, depth+1)
	case reflect.Struct:
		if v.Type() == timeType && v.CanInterface() {
			return hashArg(h, v.Interface(), opaque)
		}
		h = mix(h, hashDeep)
		for i := range v.NumField() {
			h = hashValue(h, v.Field(i), opaque, depth+1)
		}
		return h
	case reflect.Slice:
		if opaque {
			return mix(mix(mix(h, hashAddress), uint64(v.Pointer())), uint64(v.Len()))
		}
		fallthrough
	case reflect.Array:
		h = mix(mix(h, hashDeep), uint64(v.Len()))
		for i := range min(v.Len(), maxElements) {
			h = hashValue(h, v.Index(i), opaque, depth+1)
		}
		return h
	case reflect.Map:
		if opaque {
			return mix(mix(h, hashAddress), uint64(v.Pointer()))
		}
		sum := uint64(0) // the order of a map is not a difference
		for it := v.MapRange(); it.Next(); {
			sum += hashValue(hashValue(1, it.Key(), opaque, depth+1), it.Value(), opaque, depth+1)
		}
		return mix(mix(h, hashDeep), sum)
	default: // functions, channels, complex numbers are no parameters
		return mix(h, hashDeep)
	}
}

var timeType = reflect.TypeFor[time.Time]()

// hashSet holds up to maxSeen hashes in an open table of powers of two. Zero,
// which marks an empty place, stands for one.
type hashSet struct {
	table []uint64
	n     int
}

// add reports whether h was not among the others. Without room for it, room is
// false and nothing is known.
func (s *hashSet) add(h uint64) (fresh, room bool) {
	h = max(h, 1)
	if 4*(s.n+1) > 3*len(s.table) && s.n < maxSeen {
		s.grow()
	}
	mask := uint64(len(s.table) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case h:
			return false, true
		case 0:
			if s.n >= maxSeen {
				return false, false
			}
			s.table[i] = h
			s.n++
			return true, true
		}
	}
}

func (s *hashSet) grow() {
	old := s.table
	s.table = make([]uint64, max(16, 2*len(old)))
	mask := uint64(len(s.table) - 1)
	for _, h := range old {
		if h == 0 {
			continue
		}
		i := h & mask
		for s.table[i] != 0 {
			i = (i + 1) & mask
		}
		s.table[i] = h
	}
}
