// Points are [x, y] in image px; (0, 0) is the centre of the top-left pixel. A missing point is null.

/** The similarity that maps two points to two others, as a function of a point. */
export function similarity([a, b], [p, q]) {
  const [ux, uy] = [b[0] - a[0], b[1] - a[1]];
  const [vx, vy] = [q[0] - p[0], q[1] - p[1]];
  const length = ux * ux + uy * uy || 1;
  const [c, s] = [(ux * vx + uy * vy) / length, (ux * vy - uy * vx) / length];
  return ([x, y]) => [p[0] + c * (x - a[0]) - s * (y - a[1]), p[1] + s * (x - a[0]) + c * (y - a[1])];
}

/** The box [x0, y0, x1, y1] about the points that are there, or null. */
export function boxOf(points) {
  const there = points.filter(Boolean);
  if (!there.length) return null;
  const xs = there.map((p) => p[0]);
  const ys = there.map((p) => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Points moved by (dx, dy), those of some indices only. */
export function moved(points, indices, dx, dy) {
  const which = new Set(indices);
  return points.map((p, k) => (p && which.has(k) ? [p[0] + dx, p[1] + dy] : p));
}

/** Points turned by an angle (radians) and scaled about their middle. */
export function turned(points, angle, scale) {
  const box = boxOf(points);
  if (!box) return points;
  const [mx, my] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
  const [c, s] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  return points.map((p) => p && [mx + c * (p[0] - mx) - s * (p[1] - my), my + s * (p[0] - mx) + c * (p[1] - my)]);
}
