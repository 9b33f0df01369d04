/* qsort: a quicksort that goes on as a heap sort where it would take too long. The C library's takes 5 KB. */
#include <stdlib.h>
#include <string.h>

typedef struct {
  size_t size; /* bytes of an item */
  int (*compare)(const void *left, const void *right);
} Order;

static void swap(char *left, char *right, size_t size) {
  char held[64];
  for (size_t done = 0; done < size; done += sizeof held) {
    size_t part = size - done < sizeof held ? size - done : sizeof held;
    memcpy(held, left + done, part);
    memcpy(left + done, right + done, part);
    memcpy(right + done, held, part);
  }
}

static void sink(char *items, size_t count, size_t at, const Order *order) {
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    char *found = items + child * order->size;
    if (child + 1 < count && order->compare(found, found + order->size) < 0) {
      found += order->size;
      child++;
    }
    if (order->compare(items + at * order->size, found) >= 0) return;
    swap(items + at * order->size, found, order->size);
  }
}

static void heap_sort(char *items, size_t count, const Order *order) {
  for (size_t at = count / 2; at-- > 0;) sink(items, count, at, order);
  while (count-- > 1) {
    swap(items, items + count * order->size, order->size);
    sink(items, count, 0, order);
  }
}

/* Puts the middle one of three items first, and the others around it; returns where it stands then. */
static size_t divide(char *items, size_t count, const Order *order) {
  size_t size = order->size, low = 0, high = count;
  char *middle = items + count / 2 * size, *last = items + (count - 1) * size;
  if (order->compare(middle, last) > 0) swap(middle, last, size);
  if (order->compare(items, last) > 0) swap(items, last, size);
  if (order->compare(items, middle) < 0) swap(items, middle, size);
  for (;;) {
    do low++; while (low < count && order->compare(items + low * size, items) < 0);
    do high--; while (order->compare(items, items + high * size) < 0);
    if (low >= high) break;
    swap(items + low * size, items + high * size, size);
  }
  swap(items, items + high * size, size);
  return high;
}

static void sort(char *items, size_t count, const Order *order, int depth) {
  while (count > 8 && depth-- > 0) {
    size_t at = divide(items, count, order);
    if (at < count - at - 1) { /* the shorter part first: the other one needs no memory of its own */
      sort(items, at, order, depth);
      items += (at + 1) * order->size;
      count -= at + 1;
    } else {
      sort(items + (at + 1) * order->size, count - at - 1, order, depth);
      count = at;
    }
  }
  heap_sort(items, count, order);
}

void qsort(void *items, size_t count, size_t size, int (*compare)(const void *left, const void *right)) {
  Order order = {size, compare};
  int depth = 0;
  for (size_t left = count; left > 0; left /= 2) depth += 2;
  sort(items, count, &order, depth);
}
