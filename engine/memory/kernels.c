/* Pixels of a view warped into keyframes and back, and keyframes made ready for it: twins of what sources.py, warp.py, blend.py
   and selection.py define, which explain it.

   Pixels are worked on in blocks that stay in the nearest cache. Loops over a block do not branch, and load from images alone,
   so that compilers turn the others into vector instructions. Operations are never fused, so that results are the same on every
   processor. NaN stands for no depth, -1 for no surface. Arrays of pixels hold float32, one value after the other. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif
/* The loader takes the wider instructions where the processor has them. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONED __attribute__((target_clones("avx2", "default")))
#else
#define CLONED
#endif
#define KERNEL CLONED EXPORTED
/* Called once for each block: inlined wherever they are used, they take half a minute to compile. */
#define BLOCKWISE CLONED static
#define INLINE static inline __attribute__((always_inline))

#define NEAR_Z 1e-3f
#define NOTHING (-1.0f)

enum { BLOCK = 64, MAX_SURFACES = 24 };
enum { SOLVE = 1, SEARCH = 2, NOT_BESIDE = 4 };

/* A keyframe seen from a view. Pixel (column, row) at inverse depth d falls on there (column, row, 1) + d offset, and what the
   keyframe saw at (u, v) on back (u, v, 1) - d back_offset. */
typedef struct {
    const float *smooth, *depth;
    const uint8_t *color, *clear;
    int32_t width, height;
    float there[9], offset[3], back[9], back_offset[3];
    float zoom;
} Link;

typedef struct {
    float tolerance_px, least_scale, same_surface, enlarged;
} Rules;

/* At most BLOCK pixels of a view. */
typedef struct {
    int count;
    const float *columns, *rows;
} Pixels;

typedef struct {
    float inverse[BLOCK], error[BLOCK], scale[BLOCK], u[BLOCK], v[BLOCK];
    int32_t beside[BLOCK];
} Surface;

INLINE float at_least(float value, float least) { return value > least ? value : least; }

INLINE float at_most(float value, float most) { return value < most ? value : most; }

INLINE float row_of(const float *matrix, float x, float y) { return matrix[0] * x + (matrix[1] * y + matrix[2]); }

INLINE Pixels block(int64_t count, int64_t first, const float *columns, const float *rows) {
    Pixels pixels = {count - first < BLOCK ? (int)(count - first) : BLOCK, columns + first, rows + first};
    return pixels;
}

/* Between pixel centres; NaN outside, and beside NaN. */
BLOCKWISE void linear(const float *image, int width, int height, int count, const float *u, const float *v, float *found) {
    int32_t at[BLOCK], right[BLOCK], down[BLOCK];
    float x[BLOCK], y[BLOCK], corners[4][BLOCK], last_column = (float)(width - 1), last_row = (float)(height - 1);
    for (int i = 0; i < count; i++) {
        float column = at_most(at_least(u[i], 0.0f), last_column), row = at_most(at_least(v[i], 0.0f), last_row);
        int32_t c = (int32_t)column, r = (int32_t)row;
        float outside = column == u[i] ? 0.0f : NAN;
        outside = row == v[i] ? outside : NAN;
        x[i] = column - (float)c + outside;
        y[i] = row - (float)r;
        at[i] = r * width + c;
        right[i] = c < width - 1 ? 1 : 0;
        down[i] = r < height - 1 ? width : 0;
    }
    for (int i = 0; i < count; i++) {
        const float *here = image + at[i];
        corners[0][i] = here[0];
        corners[1][i] = here[right[i]];
        corners[2][i] = here[down[i]];
        corners[3][i] = here[down[i] + right[i]];
    }
    for (int i = 0; i < count; i++) {
        float top = corners[0][i] + (corners[1][i] - corners[0][i]) * x[i];
        float bottom = corners[2][i] + (corners[3][i] - corners[2][i]) * x[i];
        found[i] = top + (bottom - top) * y[i];
    }
}

/* Of the pixels that positions fall into; NaN outside. */
BLOCKWISE void of_pixel(const float *image, int width, int height, int count, const float *u, const float *v, float *found) {
    int32_t at[BLOCK];
    float outside[BLOCK], last_column = (float)(width - 1), last_row = (float)(height - 1);
    for (int i = 0; i < count; i++) {
        float inside = u[i] > -0.5f ? 0.0f : NAN;
        inside = v[i] > -0.5f ? inside : NAN;
        inside = u[i] < last_column + 0.5f ? inside : NAN;
        outside[i] = v[i] < last_row + 0.5f ? inside : NAN;
        float column = at_most(at_least(u[i], 0.0f), last_column), row = at_most(at_least(v[i], 0.0f), last_row);
        at[i] = (int32_t)(row + 0.5f) * width + (int32_t)(column + 0.5f);
    }
    for (int i = 0; i < count; i++) found[i] = image[at[i]];
    for (int i = 0; i < count; i++) found[i] += outside[i];
}

/* Positions in the keyframe, and the depth in the view over that in the keyframe. */
INLINE void project(const Link *k, Pixels p, const float *depth, float *u, float *v, float *ratio) {
    for (int i = 0; i < p.count; i++) {
        float x = depth[i] * k->offset[0] + row_of(k->there, p.columns[i], p.rows[i]);
        float y = depth[i] * k->offset[1] + row_of(k->there + 3, p.columns[i], p.rows[i]);
        float z = depth[i] * k->offset[2] + row_of(k->there + 6, p.columns[i], p.rows[i]);
        ratio[i] = 1.0f / at_least(z, NEAR_Z);
        u[i] = x * ratio[i];
        v[i] = y * ratio[i];
    }
}

/* What the keyframe saw, from the pixel itself where it cannot be interpolated. */
INLINE void depth_at(const Link *k, int count, const float *u, const float *v, float *found, int32_t *beside) {
    float nearest[BLOCK];
    int32_t any = 0;
    linear(k->smooth, k->width, k->height, count, u, v, found);
    for (int i = 0; i < count; i++) {
        beside[i] = isnan(found[i]) ? 1 : 0;
        any |= beside[i];
    }
    if (!any) return;
    of_pixel(k->depth, k->width, k->height, count, u, v, nearest);
    for (int i = 0; i < count; i++) found[i] = beside[i] ? nearest[i] : found[i];
}

INLINE float returned(const Link *k, int row, float u, float v, float found) {
    return found * -k->back_offset[row] + row_of(k->back + 3 * row, u, v);
}

BLOCKWISE void step(const Link *k, Pixels p, const float *guess, float *next) {
    float u[BLOCK], v[BLOCK], ratio[BLOCK], found[BLOCK];
    int32_t beside[BLOCK];
    project(k, p, guess, u, v, ratio);
    depth_at(k, p.count, u, v, found, beside);
    for (int i = 0; i < p.count; i++) {
        float inverse = found[i] / at_least(returned(k, 2, u[i], v[i], found[i]), NEAR_Z);
        next[i] = isnan(inverse) ? guess[i] : inverse;
    }
}

INLINE void solve(const Link *k, Pixels p, const float *guess, float *solved) {
    float first[BLOCK], second[BLOCK];
    step(k, p, guess, first);
    step(k, p, first, second);
    for (int i = 0; i < p.count; i++) {
        float move = first[i] - guess[i], change = second[i] - first[i], bend = change - move;
        int straight = fabsf(bend) < 1e-7f;
        float limit = straight ? first[i] : first[i] - move * change / bend;
        int sound = limit >= 0.0f && limit < 2.0f * at_least(guess[i], first[i]) + 0.01f;
        solved[i] = sound ? limit : second[i];
    }
}

BLOCKWISE void find_surface(const Link *k, Pixels p, const float *guess, int search, Surface *s) {
    float start[BLOCK], found[BLOCK];
    if (search) step(k, p, guess, start);
    project(k, p, search ? start : guess, s->u, s->v, s->scale);
    depth_at(k, p.count, s->u, s->v, found, s->beside);
    for (int i = 0; i < p.count; i++) {
        float u = s->u[i], v = s->v[i], ratio = 1.0f / at_least(returned(k, 2, u, v, found[i]), NEAR_Z);
        float x = fabsf(returned(k, 0, u, v, found[i]) * ratio - p.columns[i]);
        float y = fabsf(returned(k, 1, u, v, found[i]) * ratio - p.rows[i]);
        s->error[i] = isnan(found[i]) ? NAN : at_least(x, y);
        s->inverse[i] = found[i] * ratio;
        s->scale[i] *= k->zoom;
    }
}

INLINE void verify(const Link *k, Pixels p, const float *guess, float tolerance_px, int not_beside, float *found) {
    Surface s;
    find_surface(k, p, guess, 1, &s);
    for (int i = 0; i < p.count; i++) {
        int sound = s.error[i] < tolerance_px && guess[i] >= 0.0f && !(not_beside && s.beside[i]);
        found[i] = sound ? s.inverse[i] : NOTHING;
    }
}

/* How far points lie in front of what the keyframe saw. */
INLINE void gaps(const Link *k, Pixels p, const float *inverse, int interpolate, float *gap) {
    float u[BLOCK], v[BLOCK], ratio[BLOCK], seen[BLOCK];
    project(k, p, inverse, u, v, ratio);
    if (interpolate)
        linear(k->depth, k->width, k->height, p.count, u, v, seen);
    else
        of_pixel(k->depth, k->width, k->height, p.count, u, v, seen);
    for (int i = 0; i < p.count; i++) gap[i] = ratio[i] * inverse[i] - seen[i];
}

INLINE float zero_between(float a, float gap_a, float b, float gap_b) {
    float fall = gap_b - gap_a;
    if (fall > -1e-9f) fall = -1e-9f;
    float share = gap_b / fall;
    if (share < 0.0f) share = 0.0f;
    if (share > 1.0f) share = 1.0f;
    return b + (a - b) * share;
}

INLINE void narrow(const Link *k, Pixels p, const float *front, const float *back, float *narrowed) {
    float gap_front[BLOCK], gap_back[BLOCK], middle[BLOCK], gap_middle[BLOCK];
    gaps(k, p, front, 1, gap_front);
    gaps(k, p, back, 1, gap_back);
    for (int i = 0; i < p.count; i++) middle[i] = zero_between(front[i], gap_front[i], back[i], gap_back[i]);
    gaps(k, p, middle, 1, gap_middle);
    for (int i = 0; i < p.count; i++) {
        float found = gap_middle[i] > 0.0f ? zero_between(middle[i], gap_middle[i], back[i], gap_back[i])
                                           : zero_between(front[i], gap_front[i], middle[i], gap_middle[i]);
        narrowed[i] = front[i] < 0.0f || isnan(found) ? NOTHING : found;
    }
}

/* Bounds between which rays pass behind what the keyframe saw, the first and the last time. */
INLINE void crossings(const Link *k, Pixels p, const float *nearest, const float *farthest, int steps, float first[2][BLOCK],
                      float last[2][BLOCK]) {
    float before[BLOCK], gap_before[BLOCK], inverse[BLOCK], gap[BLOCK];
    for (int i = 0; i < p.count; i++) first[0][i] = first[1][i] = last[0][i] = last[1][i] = NOTHING;
    memcpy(before, nearest, (size_t)p.count * sizeof(float));
    gaps(k, p, before, 0, gap_before);
    for (int t = 1; t <= steps; t++) {
        float share = (float)t / (float)(steps - 1);
        for (int i = 0; i < p.count; i++)
            inverse[i] = t == steps ? 0.0f : (farthest[i] - nearest[i]) * share + nearest[i];
        gaps(k, p, inverse, 0, gap);
        for (int i = 0; i < p.count; i++) {
            int passes = gap_before[i] > 0.0f && gap[i] <= 0.0f, fresh = passes && first[0][i] < 0.0f;
            first[0][i] = fresh ? before[i] : first[0][i];
            first[1][i] = fresh ? inverse[i] : first[1][i];
            last[0][i] = passes ? before[i] : last[0][i];
            last[1][i] = passes ? inverse[i] : last[1][i];
            before[i] = inverse[i];
            gap_before[i] = gap[i];
        }
    }
}

/* The keyframe's border pixels reach outward. */
BLOCKWISE void colors_at(const Link *k, int count, const float *u, const float *v, const int32_t *beside, const uint8_t *clear,
                         float rgb[3][BLOCK]) {
    int32_t at[BLOCK], right[BLOCK], down[BLOCK];
    uint32_t corners[4][BLOCK];
    float x[BLOCK], y[BLOCK], last_column = (float)(k->width - 1), last_row = (float)(k->height - 1);
    for (int i = 0; i < count; i++) {
        /* Between pixels on either side of a silhouette there is no colour: it is taken where the depth was. */
        float between = 1.0f - (float)beside[i], half = 0.5f * (float)beside[i];
        float column = at_most(at_least(u[i], 0.0f), last_column), row = at_most(at_least(v[i], 0.0f), last_row);
        int32_t c = (int32_t)(column + half), r = (int32_t)(row + half);
        x[i] = between * (column - (float)c);
        y[i] = between * (row - (float)r);
        at[i] = 4 * (r * k->width + c);
        right[i] = c < k->width - 1 ? 4 : 0;
        down[i] = r < k->height - 1 ? 4 * k->width : 0;
    }
    for (int i = 0; i < count; i++) {
        const uint8_t *here = (clear[i] ? k->clear : k->color) + at[i];
        memcpy(&corners[0][i], here, 4);
        memcpy(&corners[1][i], here + right[i], 4);
        memcpy(&corners[2][i], here + down[i], 4);
        memcpy(&corners[3][i], here + down[i] + right[i], 4);
    }
    for (int j = 0; j < 3; j++)
        for (int i = 0; i < count; i++) {
            float part[4];
            for (int n = 0; n < 4; n++) part[n] = (float)(int32_t)(corners[n][i] >> 8 * j & 255);
            float top = part[0] + (part[1] - part[0]) * x[i], bottom = part[2] + (part[3] - part[2]) * x[i];
            rgb[j][i] = top + (bottom - top) * y[i];
        }
}

INLINE float projection_error(float error_px, float scale, const Rules *rules) {
    return error_px * at_most(at_least(scale, rules->least_scale), 1.0f);
}

INLINE float weight_of(float scale, float error, int beside, const Rules *rules) {
    float weight = at_most(scale, 1.0f / at_least(scale, 1e-3f));
    weight *= weight;
    weight *= weight;
    weight *= beside ? 0.1f : 1.0f;
    return (weight + 1e-4f) * (1.05f - at_most(error / rules->tolerance_px, 1.0f));
}

KERNEL void flaneur_solve(const Link *link, int64_t count, const float *columns, const float *rows, const float *guess,
                          float *solved) {
    for (int64_t first = 0; first < count; first += BLOCK)
        solve(link, block(count, first, columns, rows), guess + first, solved + first);
}

KERNEL void flaneur_verify(const Link *link, int64_t count, const float *columns, const float *rows, const float *guess,
                           float tolerance_px, int not_beside, float *found) {
    for (int64_t first = 0; first < count; first += BLOCK)
        verify(link, block(count, first, columns, rows), guess + first, tolerance_px, not_beside, found + first);
}

KERNEL void flaneur_march(const Link *link, int64_t count, const float *columns, const float *rows, const float *nearest,
                          const float *farthest, int steps, float tolerance_px, float *found) {
    for (int64_t at = 0; at < count; at += BLOCK) {
        Pixels p = block(count, at, columns, rows);
        float first[2][BLOCK], last[2][BLOCK], narrowed[BLOCK], second[BLOCK];
        int again = 0;
        crossings(link, p, nearest + at, farthest + at, steps, first, last);
        narrow(link, p, first[0], first[1], narrowed);
        verify(link, p, narrowed, tolerance_px, 0, found + at);
        for (int i = 0; i < p.count; i++) again |= first[0][i] != last[0][i];
        if (!again) continue;
        narrow(link, p, last[0], last[1], narrowed);
        verify(link, p, narrowed, tolerance_px, 0, second);
        for (int i = 0; i < p.count; i++) found[at + i] = at_least(second[i], found[at + i]);
    }
}

/* `guesses` holds all pixels' first guesses, then their second; `image` red, green, blue and inverse depth of each pixel. */
KERNEL void flaneur_blend(const Link *links, int num_links, int64_t count, const float *columns, const float *rows,
                          const float *guesses, int num_guesses, const float *least, int how, const Rules *rules,
                          float *image, float *known) {
    for (int64_t first = 0; first < count; first += BLOCK) {
        Pixels p = block(count, first, columns, rows);
        float inverse[MAX_SURFACES][BLOCK], weight[MAX_SURFACES][BLOCK], u[MAX_SURFACES][BLOCK], v[MAX_SURFACES][BLOCK];
        int32_t beside[MAX_SURFACES][BLOCK];
        uint8_t clear[MAX_SURFACES][BLOCK];
        float nearest[BLOCK], solved[BLOCK];
        int num_surfaces = num_links * num_guesses, left_out = how & NOT_BESIDE ? 1 : 0;
        for (int i = 0; i < p.count; i++) nearest[i] = NOTHING;
        for (int n = 0; n < num_surfaces; n++) {
            const Link *link = links + n / num_guesses;
            const float *guess = guesses + n % num_guesses * count + first;
            Surface s;
            if (how & SOLVE) solve(link, p, guess, solved);
            find_surface(link, p, how & SOLVE ? solved : guess, how & SEARCH, &s);
            for (int i = 0; i < p.count; i++) {
                float error = projection_error(s.error[i], s.scale[i], rules);
                float found = error < rules->tolerance_px ? s.inverse[i] : NOTHING;
                found = found >= least[first + i] ? found : NOTHING;
                found = left_out & s.beside[i] ? NOTHING : found;
                inverse[n][i] = found;
                weight[n][i] = weight_of(s.scale[i], error, s.beside[i], rules);
                nearest[i] = at_least(found, nearest[i]);
                beside[n][i] = s.beside[i];
                clear[n][i] = s.beside[i] & (s.scale[i] < rules->enlarged);
            }
            memcpy(u[n], s.u, sizeof s.u);
            memcpy(v[n], s.v, sizeof s.v);
        }
        float sum[4][BLOCK] = {{0.0f}}, total[BLOCK] = {0.0f};
        for (int i = 0; i < p.count; i++) nearest[i] = nearest[i] * rules->same_surface - 0.002f;
        for (int n = 0; n < num_surfaces; n++) {
            float rgb[3][BLOCK];
            int32_t any = 0;
            for (int i = 0; i < p.count; i++) {
                weight[n][i] = inverse[n][i] > nearest[i] ? weight[n][i] : 0.0f;
                any |= inverse[n][i] > nearest[i] ? 1 : 0;
            }
            if (!any) continue;
            colors_at(links + n / num_guesses, p.count, u[n], v[n], beside[n], clear[n], rgb);
            for (int i = 0; i < p.count; i++) {
                for (int j = 0; j < 3; j++) sum[j][i] += weight[n][i] * rgb[j][i];
                sum[3][i] += weight[n][i] * inverse[n][i];
                total[i] += weight[n][i];
            }
        }
        for (int i = 0; i < p.count; i++) {
            float share = total[i] > 0.0f ? 1.0f / at_least(total[i], 1e-9f) : 0.0f;
            for (int j = 0; j < 4; j++) image[4 * (first + i) + j] = sum[j][i] * share;
            known[first + i] = total[i] > 0.0f;
        }
    }
}

/* `image` holds red, green, blue and a fourth byte of each pixel, and is left as it is where nothing is shown. */
KERNEL void flaneur_look(const Link *links, int num_links, int64_t count, const float *columns, const float *rows,
                         const float *guesses, const Rules *rules, uint8_t *image, float *inverse_depth) {
    for (int64_t first = 0; first < count; first += BLOCK) {
        Pixels all = block(count, first, columns, rows);
        float column[BLOCK], row[BLOCK], guess[BLOCK], next[BLOCK], start[BLOCK];
        int index[BLOCK], left = all.count;
        for (int i = 0; i < left; i++) {
            index[i] = i;
            inverse_depth[first + i] = NOTHING;
        }
        memcpy(column, all.columns, (size_t)left * sizeof(float));
        memcpy(row, all.rows, (size_t)left * sizeof(float));
        memcpy(guess, guesses + first, (size_t)left * sizeof(float));
        for (int n = 0; n < num_links && left; n++) {
            Pixels p = {left, column, row};
            Surface s;
            uint8_t clear[BLOCK];
            float rgb[3][BLOCK];
            step(links + n, p, guess, next);
            step(links + n, p, next, start);
            find_surface(links + n, p, start, 1, &s);
            for (int i = 0; i < p.count; i++) clear[i] = s.beside[i] & (s.scale[i] < rules->enlarged);
            colors_at(links + n, p.count, s.u, s.v, s.beside, clear, rgb);
            left = 0;
            for (int i = 0; i < p.count; i++) {
                if (projection_error(s.error[i], s.scale[i], rules) < rules->tolerance_px) {
                    for (int j = 0; j < 3; j++) image[4 * (first + index[i]) + j] = (uint8_t)(rgb[j][i] + 0.5f);
                    inverse_depth[first + index[i]] = s.inverse[i];
                    continue;
                }
                column[left] = column[i];
                row[left] = row[i];
                guess[left] = guess[i];
                index[left++] = index[i];
            }
        }
    }
}

/* `points` holds x of all world points, then y, z and their extents; `camera` the rotation into cells, the position, the focal
   length in cells and the nearest depth; `wide` the cells of each of the reaches. */
KERNEL void flaneur_splat(const float *points, int64_t count, const float *camera, int width, int height,
                          const int32_t *reaches, int num_reaches, float sky_inverse, float *nearest, float *farthest,
                          uint8_t *sky, float *wide) {
    for (int64_t i = 0; i < count; i++) {
        float at[3], seen[3];
        for (int j = 0; j < 3; j++) at[j] = points[j * count + i] - camera[9 + j];
        for (int j = 0; j < 3; j++) seen[j] = camera[3 * j] * at[0] + camera[3 * j + 1] * at[1] + camera[3 * j + 2] * at[2];
        if (!(seen[2] > camera[13])) continue;
        float inverse = 1.0f / seen[2], x = seen[0] * inverse, y = seen[1] * inverse;
        if (!(x >= 0.0f && y >= 0.0f && x < (float)width && y < (float)height)) continue;
        intptr_t cell = (intptr_t)(int)y * width + (int)x;
        if (!(inverse > sky_inverse)) {
            sky[cell] = 1;
            continue;
        }
        nearest[cell] = at_least(inverse, nearest[cell]);
        farthest[cell] = at_most(inverse, farthest[cell]);
        float reach = points[3 * count + i] * inverse * camera[12];
        for (int r = 0; r < num_reaches; r++) {
            float *grown = wide + (intptr_t)r * width * height + cell;
            if (reach > (float)reaches[r] / 4.0f) *grown = at_least(inverse, *grown);
        }
    }
}

INLINE float gap_between(const float *depth, intptr_t a, intptr_t b) { return fabsf(depth[b] - depth[a]); }

/* Whether depth jumps between two pixels by more than beside them, `before` and `after` being where those gaps begin. */
INLINE uint8_t jumps(const float *depth, intptr_t at, intptr_t before, intptr_t after, intptr_t next) {
    float around = at_least(gap_between(depth, before, before + next), gap_between(depth, after, after + next));
    return gap_between(depth, at, at + next) > 2.0f * around + 0.003f;
}

/* Each pixel is first marked where a jump begins, to the right or down, and then on both sides of every jump. */
KERNEL void flaneur_silhouettes(const float *depth, int width, int height, uint8_t *found) {
    for (intptr_t y = 0; y < height; y++) {
        const float *row = depth + y * width;
        uint8_t *marks = found + y * width;
        intptr_t last = width - 2, up = y > 0 ? -width : 0, down = y < height - 2 ? width : 0;
        memset(marks, 0, (size_t)width);
        for (intptr_t x = 1; x < last; x++) marks[x] = jumps(row, x, x - 1, x + 1, 1);
        if (last >= 0) {
            marks[0] = jumps(row, 0, 0, last > 0 ? 1 : 0, 1);
            marks[last] = jumps(row, last, last > 0 ? last - 1 : 0, last, 1);
        }
        if (y < height - 1)
            for (intptr_t x = 0; x < width; x++) marks[x] |= (uint8_t)(2 * jumps(row, x, x + up, x + down, width));
    }
    for (intptr_t y = height - 1; y >= 0; y--) {
        uint8_t *marks = found + y * width;
        for (intptr_t x = width - 1; x >= 0; x--) {
            int beside = marks[x] | (x > 0 ? marks[x - 1] & 1 : 0) | (y > 0 ? marks[x - width] & 2 : 0);
            marks[x] = beside ? 1 : 0;
        }
    }
}

INLINE int within(int position, int side) { return position < 0 ? 0 : position < side ? position : side - 1; }

/* `offsets` holds where clear colours are looked for, down and right, the nearest first. */
KERNEL void flaneur_clear(uint8_t *color, uint8_t *cleared, const float *depth, const uint8_t *beside, int width, int height,
                          const int32_t *offsets, int num_offsets) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            intptr_t at = (intptr_t)y * width + x;
            float own = depth[at], nearest = own, farthest = own;
            if (!beside[at]) continue;
            for (int n = 0; n < num_offsets; n++) {
                intptr_t there = (intptr_t)within(y + offsets[2 * n], height) * width + within(x + offsets[2 * n + 1], width);
                if (beside[there] || !(fabsf(depth[there] - own) < 0.05f * own + 0.002f)) continue;
                memcpy(cleared + 4 * at, color + 4 * there, 4);
                break;
            }
            for (int n = 0; n < 9; n++) {
                float around = depth[(intptr_t)within(y + n / 3 - 1, height) * width + within(x + n % 3 - 1, width)];
                nearest = at_least(around, nearest);
                farthest = at_most(around, farthest);
            }
            if (own < 0.5f * (nearest + farthest)) memcpy(color + 4 * at, cleared + 4 * at, 4);
        }
}
